# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where we open a malformed image that QEMU refuses, or the other way around, and why: by the words of
who refuses."""

import re

# What we refuse and QEMU opens.
STRICTER = [
    (r'L1 table at 0x\w+ and the reference count table at 0x\w+ overlap',
     'QEMU notices when it writes; nothing that reads such tables can be trusted'),
    (r'backing file name of \d+ bytes at offset \d+ is too long or misplaced',
     'it lies in the fixed part of the header, or behind the first cluster'),
    (r'L1 table at offset 0x\w+ is invalid',
     'an offset beyond 2^56 has no place in a file; QEMU 7.2 then hangs when it writes'),
    (r'reference count table at offset 0x(0|[1-9a-f]\w{14,}) is invalid',
     'on the header, or beyond 2^56, as above'),
    (r'(an external data file is|extended L2 entries are) not supported',
     'QEMU shows what they are; we do not know them at all'),
    (r'header length \d+ is invalid',
     'the specification asks for a multiple of 8'),
    (r'encryption \(method 1\) is not supported',
     'QEMU shows what it is; we do not know the method at all'),
    (r'snapshot table at offset 0x\w+ is invalid',
     'there are snapshots, and their table would lie on the header'),
]
# What QEMU refuses and we open.
LAXER = [
    (r'Header extension too large',
     'the length of the end marker, which says nothing'),
    (r'ext_backing_format: len=\d+ too large',
     'a name is a name; opening that format fails, if it is needed'),
    (r'Snapshot table offset invalid',
     'there are no snapshots, so the offset says nothing'),
    (r'Image does not contain a reference count table',
     'it can be read and repaired; nothing can be allocated'),
]


def reason(ours, theirs):
    """Why the verdicts on this image may differ, or None. The arguments have a code and an err."""
    known, said = (STRICTER, ours.err) if ours.code != 0 else (LAXER, theirs.err)
    return next((why for words, why in known if re.search(words, said)), None)
