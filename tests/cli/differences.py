# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where random scripts may find ashlar-img and ashlar-io different from qemu-img and qemu-io 7.2, and why:
the list. An entry says of which commands, and takes out of what they say what may differ; the rest must be
the same.

TWIN is for the two images that the two programs made by the same commands, SAME for one image that both look
at: there, nothing about places differs any more.

What no script does (script_draw.py keeps to it), because there we differ on purpose or by chance:

- grow a qcow2 image that was shrunk inside a cluster: QEMU 7.2 shows what was cut off again;
- grow a version 2 image that has a backing file: QEMU cannot, we write zeroes;
- write compressed (write -c) to what is allocated: QEMU refuses, we put it elsewhere;
- use O_DIRECT (-n, -t none, -T none) on a raw image whose length is no multiple of 4096: QEMU refuses to
  write to it, we pad; nor truncate one with it to such a length: QEMU then writes beyond it;
- read or write the state of a machine (-b) in qcow2: it belongs to internal snapshots, which are to come;
- ask ashlar-io what is allocated (alloc, map) of an image to which zeroes were written: zeroes need no place;
- compare two different images strictly (compare -s): QEMU compares a flag as well that says whether one
  answer reaches the end of the image, which depends on how far its answers happen to go;
- have a raw image as a backing file whose length is no multiple of 512: QEMU counts the rest of the last
  sector as its own, we as the overlay's;
- make an image anew over an existing one: if that fails, QEMU has removed the old one, and we keep it;
- zero quickly (write -z -n) in version 2, which has no zero clusters: QEMU refuses more often; or over a
  backing file: for a part of a cluster QEMU asks the host's file system for holes below, and we refuse;
- fail a convert by its last option (-t): QEMU may have made the target by then;
- measure with compat=v2 or v3: QEMU creates with these names but does not know them there;
- discard a part of a block of 4096 bytes of a raw image: a discard promises nothing, and with O_DIRECT QEMU
  punches a hole into the bytes that were named, where we leave alone what is no whole block;
- write to an image that another stands on to which zeroes were written: what read as zeroes anyway, because
  of the image below, needs no place with us, and so shows what is written below later; QEMU has copied it;
- start two asynchronous requests that overlap: what they leave behind is not defined."""

import json
import re
from typing import Callable, NamedTuple, Optional


class Difference(NamedTuple):
    reason: str
    commands: tuple
    in_text: Optional[Callable] = None      # of the step and the text
    in_json: Optional[Callable] = None      # of the step and what was said as JSON


def without_line(pattern):
    return lambda step, text: re.sub(f'^{pattern}.*\n', '', text, flags=re.M)


def without(*keys):
    """Anywhere in it."""
    def drop(step, said):
        if isinstance(said, dict):
            return {key: drop(step, value) for key, value in said.items() if key not in keys}
        return [drop(step, value) for value in said] if isinstance(said, list) else said
    return drop


def without_shares(_step, text):
    """Of clusters: how many there are and how many are compressed stay."""
    text = re.sub(r'\d+/(\d+) = .* allocated, .* fragmented, (.*) compressed', r'\1, \2 compressed', text)
    return without_line('Image end offset:')(None, text)


FIRST_BLOCK = 4096


def rows(text):
    """The lines of a map without where in the file it lies."""
    said = re.findall(r'^(0x[0-9a-f]+|0) +(0x[0-9a-f]+) +(?:0x[0-9a-f]+|0) +(.*)$', text, flags=re.M)
    return [{'start': int(start, 0), 'length': int(length, 0), 'file': name, 'data': True, 'zero': False}
            for start, length, name in said]


def entries_of(step, said, places=False):
    """Of a map: neighbours that tell the same joined, with where in the file they lie or without."""
    if isinstance(said, str):
        if not said.startswith('Offset'):
            return said
        said = rows(said) if step.words[-1].endswith('.raw') else []
    found = []
    for entry in said:
        entry = dict(entry)
        if entry['data']:
            entry['zero'] = False
        if not places:
            entry.pop('offset', None)
            if entry['zero']:
                entry['depth'] = entry['present'] = None
        if found and follows(found[-1], entry):
            found[-1]['length'] += entry['length']
        else:
            found.append(entry)
    return found if places else without_first_block(step, found)


def follows(last, entry):
    length = last['length']
    next_ = {**last, 'start': last['start'] + length, 'length': entry['length']}
    if 'offset' in last:
        next_['offset'] += length
    return next_ == entry


def without_first_block(step, entries):
    """What there is behind the first block, where that may be a raw file's."""
    if not step.words[-1].endswith('.raw') and entries and entries[0].get('depth', 1) == 0:
        return entries
    found = []
    for entry in entries:
        start, end = max(entry['start'], FIRST_BLOCK), entry['start'] + entry['length']
        if start < end:
            found.append({**entry, 'start': start, 'length': end - start})
    return found


def twin_entries(step, said):
    if not step.zeroed:
        return entries_of(step, said)
    return said[:6] if isinstance(said, str) else sum(entry['length'] for entry in said)


def loosely(change):
    return lambda step, said: change(step, said) if step.zeroed else said


TWIN = [
    Difference('How much of the host a file uses is a matter of where clusters lie and of preallocation.',
               ('info',), without_line('disk size:'), without('actual-size')),
    Difference('Where clusters lie, and so where the file ends and how far they lie apart, is for each '
               'allocator to choose.',
               ('check',), without_shares,
               without('image-end-offset', 'fragmented-clusters', 'allocated-clusters')),
    Difference('Where a mapped range lies is for each allocator to choose. QEMU writes to the first block of '
               'a raw file that it makes, to find out later how O_DIRECT wants its requests aligned on file '
               'systems that do not tell; we do not need it. And where zeroes are, zeroes need no place: we '
               'say that nothing is there, where QEMU makes a zero cluster, or writes zeroes. So of an image '
               'of which a part was zeroed or discarded, or that was converted, only the length is compared.',
               ('map',), twin_entries, twin_entries),
    Difference('So what is measured depends on the first block of a raw file, and on what was zeroed or '
               'discarded.',
               ('measure',), loosely(without_line('required size:')), loosely(without('required'))),
    Difference('How often progress is told is a matter of time.',
               ('convert',), lambda _step, text: re.sub(r'( *\(\d+\.\d\d/100%\)\r?)+', '(progress)', text)),
    Difference('Whether an asynchronous request ends before the next prompt or after it is a matter of time.',
               ('',), lambda step, text: text.replace('io>\n', '') if 'aio_' in step.given() else text),
]

SAME = [
    Difference('QEMU looks through a data cluster at the file that holds it, if it believes that the image '
               'was preallocated, and says zero where the file has a hole. It decides that from the use of '
               'disk space. We say what the image says; both agree that it is data, and where. (A map as '
               'text leaves such zeroes out.)',
               ('map',), lambda step, text: text if step.words[-1].endswith('.raw') else text[:6],
               lambda step, said: entries_of(step, said, True)),
    Difference('So what is measured of a qcow2 image differs too.',
               ('measure',), without_line('required size:'), without('required')),
]


def parsed(step, text):
    if step.json():
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def plain(differences, step, text):
    """What must be the same of what was said."""
    said = parsed(step, text)
    for difference in differences:
        change = difference.in_text if isinstance(said, str) else difference.in_json
        if step.command() in difference.commands and change:
            said = change(step, said)
    if isinstance(said, list):
        # One a line.
        return '\n'.join(json.dumps(entry, sort_keys=True) for entry in said)
    return said if isinstance(said, str) else json.dumps(said, indent=1, sort_keys=True)


def plain_errors(_step, text):
    """An error of ours names the program, the file and the reason, and so it is not theirs word by word.
    Whether there is one must be the same."""
    return 'something\n' if text else ''
