# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares what both sides print about an image. Where they may differ, the reason is here:

1. map: QEMU looks through a data cluster at the file that holds it, if it believes that the image was
   preallocated, and says "zero" where the file has a hole. It decides that from the file's use of disk space.
   We say what the image says; both agree that it is data, and where.
2. map: QEMU rounds the size of a raw file up to whole sectors, and says that the file holds the zeroes behind
   its end. We say that no layer holds them, or, in the last sector of the topmost layer, that they are data.
3. check: QEMU does not look at the refcounts of clusters behind the end of the file; we call them leaked.
   They are there only where a process was killed.
"""


def entries(map_):
    """A map without what may differ: neighbours joined that tell the same."""
    found = []
    for entry in map_:
        entry = dict(entry)
        if entry['data']:
            entry['zero'] = False
        last = found[-1] if found else None
        if last is not None and joins(last, entry):
            last['length'] += entry['length']
        else:
            found.append(entry)
    return found


def cut(map_, size):
    """Without the rest of the last sector."""
    return [{**entry, 'length': min(entry['length'], size - entry['start'])}
            for entry in map_ if entry['start'] < size]


def pieces(map_, *places):
    """The map with its entries divided at these places."""
    for entry in map_:
        start, end = entry['start'], entry['start'] + entry['length']
        for place in [*(place for place in sorted(places) if start < place < end), end]:
            piece = {**entry, 'start': start, 'length': place - start}
            if 'offset' in entry:
                piece['offset'] = entry['offset'] + start - entry['start']
            yield piece
            start = place


def without_raw_tail(theirs, ours, raw_bytes, raw_depth):
    """Their map, with what they say of the rest of the last sector of a raw file as we say it, where we say
    that no layer holds it."""
    start, end = raw_bytes, (raw_bytes + 511) // 512 * 512
    unheld = [piece for piece in pieces(ours, start, end)
              if start <= piece['start'] < end and not piece['present'] and piece['zero']]
    places = [place for piece in unheld for place in (piece['start'], piece['start'] + piece['length'])]
    for piece in pieces(theirs, *places):
        if piece['depth'] == raw_depth and piece['zero'] and not piece['data']:
            piece = next(({**same, 'length': piece['length']} for same in unheld
                          if same['start'] == piece['start']), piece)
        yield piece


def joins(a, b):
    if any(a.get(key) != b.get(key) for key in ('depth', 'present', 'zero', 'data')):
        return False
    if ('offset' in a) != ('offset' in b):
        return False
    return 'offset' not in a or a['offset'] + a['length'] == b['offset']


def first_in_maps(theirs, ours, size, raw_bytes, raw_depth):
    """`raw_bytes` is the length of the raw file at `raw_depth`, or a whole number of sectors."""
    theirs = without_raw_tail(theirs, ours, raw_bytes, raw_depth)
    theirs, ours = entries(cut(theirs, size)), entries(cut(ours, size))
    for index, (a, b) in enumerate(zip(theirs, ours)):
        if a != b:
            return f'entry {index}: theirs {a}, ours {b}'
    if len(theirs) != len(ours):
        return f'theirs has {len(theirs)} entries, ours {len(ours)}'
    return None


def first_in_checks(theirs, ours, leaks_allowed):
    if leaks_allowed:
        behind = ours.get('leaks', 0) - theirs.get('leaks', 0)
        if behind > 0 and ours['image-end-offset'] > theirs['image-end-offset']:
            theirs = {**theirs, 'leaks': ours['leaks'], 'image-end-offset': ours['image-end-offset']}
    return first_in_objects(theirs, ours)


def first_in_objects(theirs, ours):
    for key in sorted(set(theirs) | set(ours)):
        if theirs.get(key) != ours.get(key):
            return f'{key}: theirs {theirs.get(key)}, ours {ours.get(key)}'
    return None
