"""Both entropy coders a second time, written from the norm: what the fast ones must agree with."""

from __future__ import annotations

from bisect import bisect_right

from vcmcodec.entropy.cdf import Tables

CLASS_COUNTS = [2 ** (14 - c) for c in range(10)] + [11] + [1] * 21


def rans_encode(intervals):
    """(start, frequency) pairs of 16-bit tables -> the bytes of a run."""
    if not intervals:
        return b""
    state, words = 1 << 31, []
    for start, frequency in reversed(intervals):
        if state >= frequency << 47:
            words.append(state & 0xFFFFFFFF)
            state >>= 32
        state = (state // frequency << 16) + state % frequency + start
    head = state.to_bytes(8, "little")
    while len(head) > 5 and head[-1] == 0:
        head = head[:-1]
    return head + b"".join(word.to_bytes(4, "little") for word in reversed(words))


class RansReader:
    """Decodes symbol by symbol, given a cdf each time."""

    def __init__(self, data):
        head = 8 - -len(data) % 4
        self.state = int.from_bytes(data[:head], "little")
        self.words = [data[i : i + 4] for i in range(head, len(data), 4)]

    def symbol(self, cdf):
        low = self.state & 0xFFFF
        s = bisect_right(cdf, low) - 1
        self.state = (cdf[s + 1] - cdf[s]) * (self.state >> 16) + low - cdf[s]
        if self.state < 1 << 31:
            self.state = self.state << 32 | int.from_bytes(self.words.pop(0), "little")
        return s

    def at_end(self):
        return self.state == 1 << 31 and not self.words


def class_cdf():
    cdf = [0]
    for count in CLASS_COUNTS:
        cdf += [cdf[-1] + count, cdf[-1] + 2 * count]
    return cdf


def rans_decode(data, tables: Tables, parts):
    """Decode all parts (lists of table indexes) of a run; asserts that it ends where it should."""
    reader, values = RansReader(data) if data else None, []
    for part in parts:
        symbols = [reader.symbol(tables.cdfs[i].tolist()) if i >= tables.skip else 0 for i in part]
        lows = tables.offsets.tolist()
        value = [s + lows[i] if i >= tables.skip else 0 for s, i in zip(symbols, part, strict=True)]
        escaped = [
            k
            for k, (s, i) in enumerate(zip(symbols, part, strict=True))
            if i >= tables.skip and s == tables.cdfs[i].size - 2
        ]
        classes = [reader.symbol(class_cdf()) for _ in escaped]
        for k, c in zip(escaped, classes, strict=True):
            width, mantissa = c >> 1, 0
            while width:
                bits = width % 8 or 8
                mantissa = mantissa << bits | reader.symbol(list(range(0, 65537, 65536 >> bits)))
                width -= bits
            distance, i = mantissa + (1 << (c >> 1)), part[k]
            top = lows[i] + tables.cdfs[i].size - 3
            value[k] = lows[i] - distance if c & 1 else top + distance
        values.append(value)
    assert reader is None or reader.at_end()
    return values


class RangeWriter:
    """The range encoder: 32-bit range, a byte out when the range falls below 2**24."""

    def __init__(self):
        self.low, self.range, self.out, self.shifts = 0, 0xFFFFFFFF, 0, 0

    def encode(self, low, high, total):
        unit = self.range // total
        self.low += unit * low  # an integer without end: carries need no care
        self.range = self.range - unit * low if high == total else unit * (high - low)
        while self.range < 1 << 24:
            self.low <<= 8
            self.range <<= 8
            self.shifts += 1

    def finish(self):
        done = self.low >> 32
        data = done.to_bytes(self.shifts, "big") if self.shifts else b""
        low = self.low & 0xFFFFFFFF
        high = (low + self.range) & 0xFFFFFFFF
        while True:
            data += bytes([low >> 24])
            if low >> 24 != high >> 24:
                return data
            low, high = low << 8 & 0xFFFFFFFF, high << 8 & 0xFFFFFFFF


def group_map(labels, columns, count):
    """A group map coded decision by decision, as the norm tells it."""
    if count == 1:
        return b""
    rows = len(labels) // columns
    full = [labels[columns * y : columns * (y + 1)] for y in range(rows)]

    def fits(s):
        return all(
            full[y][x] == full[y - y % s][x - x % s] for y in range(rows) for x in range(columns)
        )

    scale = next(s for s in (8, 4, 2, 1) if fits(s))
    cells = [row[::scale] for row in full[::scale]]
    writer, counts, earlier = RangeWriter(), {}, set()
    bounds = {1: (0, 8), 2: (8, 14), 4: (14, 15), 8: (15, 16)}
    writer.encode(*bounds[scale], 16)

    def ask(context, first, answer):
        n, y = counts.get(context, first)
        writer.encode(*((0, y) if answer else (y, y + n)), y + n)
        n, y = (n, y + 2) if answer else (n + 2, y)
        counts[context] = ((n + 1) // 2, (y + 1) // 2) if n + y > 1023 else (n, y)
        return answer

    for y, row in enumerate(cells):
        for x, label in enumerate(row):
            if y == 0:
                left = top = top_left = top_right = row[x - 1] if x else 0
            else:
                top = cells[y - 1][x]
                left, top_left = (row[x - 1], cells[y - 1][x - 1]) if x else (top, top)
                top_right = cells[y - 1][x + 1] if x + 1 < len(row) else top
            pairs = [(left, top), (top_left, left), (top_left, top)]
            pairs += [(top_right, top), (top_right, left), (top_right, top_left)]
            p = sum(2**bit * (a == b) for bit, (a, b) in enumerate(pairs))
            order = [top, left] if top_left == left else [left, top]
            asked = []
            for candidate in [*order, top_right, top_left]:
                if candidate in asked or len(asked) == count - 1:
                    continue
                first = [(2, 8), (2, 4), (2, 2), (2, 2)][len(asked)]
                yes = ask(64 * len(asked) + p, first, label == candidate)
                asked.append(candidate)
                if yes:
                    break
            else:
                rest = [k for k in range(count) if k not in asked]
                old = [k for k in rest if k in earlier]
                new = [k for k in rest if k not in earlier]
                if old and new and ask(256, (2, 2), label in new):
                    old = []
                if not old or label in new:
                    lowest = len(new) == 1 or ask(257, (2, 4), label == new[0])
                    old = [new[0]] if lowest else new[1:]
                if len(old) > 1:
                    writer.encode(old.index(label), old.index(label) + 1, len(old))
            earlier.add(label)
    return writer.finish()
