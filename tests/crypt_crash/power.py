"""What a power cut leaves of the changes that a program made: anything not synced may be lost, or be garbage."""
from harness.crash import SECTOR, Disk, File, changes

WHOLE_SECTOR = 4096  # as SQLite has it for a device without powersafe overwrites


class Torn(File):
    """As `File`; a part that did not come whole is what was there, or garbage. Without powersafe overwrites the garbage is all
    of the sectors that the write touched."""

    def after_cut(self, rng, share, trash, psow):
        data, size = bytearray(self.data), SECTOR if psow else WHOLE_SECTOR

        def put(at, part):
            data.extend(bytes(max(0, at - len(data))))
            data[at:at + len(part)] = part

        for kind, offset, content in self.pending:
            if kind == "size":
                if rng.random() < share:
                    data[offset:] = b"" if offset <= len(data) else bytes(offset - len(data))
                continue
            end = offset + len(content)
            for sector in range(offset // size * size, end, size):
                first, last = max(offset, sector), min(end, sector + size)
                part = content[first - offset:last - offset]
                if rng.random() < share:
                    put(first, part)
                elif rng.random() < trash:
                    whole = range(sector, max(last, min(len(data), sector + size)))
                    hit = range(first, last) if psow else whole
                    put(hit.start, rng.randbytes(len(hit)))
        return bytes(data)


class Power(Disk):
    """A folder, from nothing, change by change."""

    def __init__(self):
        self.names, self.durable, self.pending = {}, {}, []

    def make(self, kind, path, offset, content):
        super().make(kind, path, offset, content)
        if kind == "create":
            torn = self.names[path] = Torn()
            self.pending[-1] = (path, torn)

    def left(self, rng, share, trash, psow):
        """File names and contents after a cut now."""
        names = dict(self.durable)
        kept = round(share * len(self.pending)) if share in (0, 1) else rng.randint(0, len(self.pending))
        for path, file in self.pending[:kept]:
            self._name(names, path, file)
        return {path: file.after_cut(rng, share, trash, psow) for path, file in names.items()}


def replay(log, folder):
    """Yields (changes so far, transactions acknowledged, the disk) after each change of a log."""
    disk, acknowledged = Power(), 0
    disk.folder = str(folder)
    for number, (kind, path, offset, content) in enumerate(changes(log), 1):
        if path.endswith("/acks"):
            acknowledged += kind == "write"
        else:
            disk.make(kind, path, offset, content)
        yield number, acknowledged, disk
