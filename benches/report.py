"""Tables of medians and of ratios taken round by round."""
from statistics import median, quantiles


def ratio(series, base):
    """The median over the rounds of series / base: drift of the machine between rounds cancels out."""
    return median(x / y for x, y in zip(series, base))


def spread(values):
    low, _, high = quantiles(values, n=4) if len(values) > 1 else values * 3
    return low, high


def table(title, unit, series, bases, digits=2):
    """A row for each of `series` {name: [value of each round]}, a ratio column for each name in `bases`."""
    bases = [b for b in bases if b in series]
    head = ["", unit, "quartiles", *(f"/ {b}" for b in bases)]
    rows = [[name, f"{median(v):.{digits}f}", "{:.{d}f} .. {:.{d}f}".format(*spread(v), d=digits),
             *(f"{ratio(v, series[b]):.3f}" for b in bases)] for name, v in series.items()]
    rounds = len(next(iter(series.values())))
    lines(f"{title} ({rounds} round{'s' * (rounds != 1)})", head, rows)


def lines(title, head, rows):
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows]:
        cells = [cell.rjust(w) for cell, w in zip(row, widths)]
        print("  " + "   ".join([row[0].ljust(widths[0]), *cells[1:]]))


class Goals:
    """Collects what was aimed at and prints it at the end of the run."""

    def __init__(self):
        self.rows = []

    def add(self, name, measured, least=None, most=None):
        met = measured >= least if least is not None else measured <= most
        aim = f">= {least:g}" if least is not None else f"<= {most:g}"
        self.rows.append([name, f"{measured:.3f}", aim, "met" if met else "MISSED"])

    def print(self):
        if self.rows:
            lines("Goals", ["", "measured", "goal", ""], self.rows)
