"""XXH3 (64 bits) of more than 240 bytes, in plain Python: what anyone can compute, and collisions of it."""
import struct

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
M64, M32 = (1 << 64) - 1, (1 << 32) - 1
P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def seeded(seed):
    words = struct.unpack("<24Q", SECRET)
    return struct.pack("<24Q", *((w - seed if i % 2 else w + seed) & M64 for i, w in enumerate(words)))


def words(data, at):
    return struct.unpack_from("<8Q", data, at)


def xxh3(data, seed=0):
    assert len(data) > 240
    secret = seeded(seed)
    acc = [P32[2], P64[0], P64[1], P64[2], P64[3], P32[1], P64[4], P32[0]]

    def stripe(at, key_at):
        for i, (d, k) in enumerate(zip(words(data, at), words(secret, key_at))):
            acc[i ^ 1] = (acc[i ^ 1] + d) & M64
            acc[i] = (acc[i] + ((d ^ k) & M32) * ((d ^ k) >> 32)) & M64

    blocks = (len(data) - 1) // 1024
    for block in range(blocks):
        for n in range(16):
            stripe(1024 * block + 64 * n, 8 * n)
        for i, k in enumerate(words(secret, 128)):
            acc[i] = (acc[i] ^ acc[i] >> 47 ^ k) * P32[0] & M64
    for n in range((len(data) - 1 - 1024 * blocks) // 64):
        stripe(1024 * blocks + 64 * n, 8 * n)
    stripe(len(data) - 64, 121)
    result = len(data) * P64[0] & M64
    for i in range(4):
        a, b = struct.unpack_from("<2Q", secret, 11 + 16 * i)
        product = (acc[2 * i] ^ a) * (acc[2 * i + 1] ^ b)
        result += (product & M64) ^ product >> 64
    result &= M64
    result ^= result >> 37
    result = result * 0x165667919E3779F9 & M64
    return result ^ result >> 32


def colliding(pgno, before=b"\0\0\0\0"):
    """Two pages with one hash, its seed the page's number; they begin with `before`."""
    key = seeded(pgno)
    pages = []
    for x, y in ((1, 9), (4, 6)):
        page = bytearray(before + b"\x05" * (4096 - len(before)))
        page[64:68], page[128:132] = key[8:12], key[16:20]  # their products with anything are 0
        page[68:72], page[132:136] = struct.pack("<I", x), struct.pack("<I", y)  # and of these the sum counts
        pages.append(bytes(page))
    assert pages[0] != pages[1] and xxh3(pages[0], pgno) == xxh3(pages[1], pgno)
    return pages
