# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cases of io_alike.py, which explains their marks."""


def lines(text):
    """One case a line; a backslash at the end of a line goes on in the next."""
    text = text.replace(' \\\n    ', ' ')
    return [line for line in text.strip('\n').splitlines() if line and not line.startswith('#')]


def each(before, commands):
    """Every command alone, on the same image."""
    return [f"{before} -c '{command}'" for command in lines(commands)]


PROGRAM = lines(r'''
own|-x
own|--foo
own|-f
own|-c
own|-T foo -x
loose|nofile
-c length
-f foo a.raw
loose|-f qcow2 -c length junk
--image-opts -f raw driver=raw,file.filename=a.raw -c length
--image-opts driver=raw,file.filename=a.raw -c length
--image-opts driver=raw,file.driver=file,file.filename=a.raw -c length
loose|--image-opts x=y -c length
-t foo a.raw
-d foo a.raw
-i foo a.raw
-f raw -U a.raw -c length
-r -f raw -U a.raw -c length
-rf raw a.raw -clength
-c length -f raw a.raw -c length --cmd length --cmd=length --format=raw --read-only --discard=unmap
-n -f raw a.raw -c 'write -P 9 512 3' -c 'read -P 9 512 3'
-n -t writeback -f raw a.raw -c 'write -P 9 1 3'
-t none -m -f raw a.raw -c 'write -P 9 0 64k' -c 'read -P 9 0 64k' -c 'readv -P 9 0 512 512'
-t directsync -f raw a.raw -c 'write 0 512'
-t writethrough -f raw a.raw -c 'write 0 512'
-t unsafe -f raw a.raw -c 'write 0 512'
-d off -f raw a.raw -c 'discard 0 64k'
-d ignore -f raw a.raw -c 'discard 0 64k'
-d on -f raw a.raw -c 'discard 0 64k'
-d unmap -f raw a.raw -c 'discard 0 64k'
-i threads -f raw a.raw -c 'read -q 0 512'
-k -n -f raw a.raw -c 'read -q 0 512'
loose|-c 'read -P 1 0 512' a.raw
'json:{"driver":"null-co"}' -c length
loose|'json:{' -c length
'json:{"driver":"raw","file":{"driver":"file","filename":"a.raw"}}' -c 'read -P 1 0 64k'
''')

SHELL = lines(r'''
<length\nread 0 512\n\nfoo\nquit\nlength\n|-f raw a.raw
<length\nlength|-f raw a.raw
<length\nopen -o driver=raw a.raw\nlength\nclose\nlength|
<\n\n   \n|
<aio_write -q 0 64k\naio_flush\nread -P 0xcd 0 64k|-f raw a.raw
<read -P 4 0 1\nread -P 1 0 1|-f raw a.raw
<|-f raw a.raw
-f raw a.raw -c foo -c length
-f raw a.raw -c '' -c '   ' -c length
-f raw a.raw -c quit -c length
-f raw a.raw -c q -c length
-f raw a.raw -c foo -c 'quit now'
-c 'quit now and then'
-c 'help foo'
-c 'help read flush'
-c 'help flush'
-c 'help l'
-c 'read 0 512' -c info -c close -c flush -c length -c map -c 'alloc 0' -c 'discard 0 1' -c 'truncate 4'
-c aio_flush -c reopen -c open -c read -c write
-f raw a.raw -c r -c 'r 0 512' -c w -c 'w 0 512' -c rv -c f -c l -c 'd 0 512' -c o -c 'a 0' -c i \
    -c 't 2M' -c c -c l
-f raw a.raw -c 'length;length' -c '#foo' -c - -c '!ls'
-f raw a.raw -c 'read "0" 512' -c 'read 0\ 512'
-f raw a.raw -c '  read   -q   0   512  '
-f raw a.raw -c 'read 0 512 -q' -c 'read 0 -q 512' -c 'read -- 0 512' -c 'read -q -- 0 512'
-c 'sleep 10' -c 'sleep 0x10' -c 'sleep 010'
-c sleep
-c 'sleep x'
-c 'sleep -1'
-c 'sleep 1k'
-c 'sleep 1 2'
-c sigraise
-c 'sigraise x'
-c 'sigraise 0'
-c 'sigraise 999'
-c 'sigraise -1'
-c 'sigraise 1k'
-c 'sigraise 15' -c length
-c 'sigraise 0xf'
-c 'abort 3'
-f raw a.raw -c 'flush 3' -c flush -c 'close 3' -c close -c close
''')

READ = each('-f raw a.raw', r'''
read 0 64k
read -v 0 40
read -v 1023k 32
read -P 0 0 64k
read -P 1 0 64k
read -P 1 0 65k
read -C 0 1k
read -q 0 512
read -q -v 0 512
read -qC 0 1
read -vC 0 16
read -v -P 2 0 16
read -P 2 -P 1 0 16
read 1M 512
read 2M 512
read 1048575 2
read 0 0
read -v 0 0
read -P 5 0 0
read 1M 0
read 2M 0
read
read 0
read 0 1 2
read -x 0 1
read x 1
read -- -1 1
read -1 1
read 0 x
read 0 3G
write -z 0 2147483136
write -z 0 2147483137
discard 0 2147483136
discard 0 2147483137
read 0 2147483137
read 0 99999999999999999999
read 99999999999999999999 0
read 0 8E
read 9223372036854775807 512
read 9223372036854775807 0
read 9223372036854775296 512
read 9223372036854775808 0
read -P x 0 512
read -P 256 0 512
read -P -1 0 512
read -P ff 0 512
read -P 08 0 512
read -P 1.5 0 512
read -P 0x01 0 512
read -P 001 0 512
read -P
read -s 0 0 512
read -l 0 0 512
read -P 0 -s 1024 0 512
read -P 0 -l 1024 0 512
read -P 0 -s 100 -l 500 0 512
read -P 1 -s 100 -l 412 0 512
read -P 1 -s 512 0 512
read -P 1 -s 513 0 512
read -P 0 -s 512 -l 512 65024 64k
read -P 0 -l 512 65024 64k
read -P 1 -s x 0 1
read -P 1 -l x 0 1
read 1 3
read -b 0 512
read -b 1 512
read -b 0 513
read -p 1 512
read 0x200 0x200
read 01000 01000
read 512b 512B
read 0.5k 1.5k
read .5k 0
read 1.k 0
read 1K 1k
read 1kb 0
read 1KiB 0
read 1e2 0
read +512 +512
read 1.5 0
read 1.5b 0
read 512.0 512.00
read inf 0
read nan 0
read 0x 0
read 0.0005M 0
read 1t 0
read 7E 0
read 0 7E
''') + each('-f raw big.raw', r'''
read -v 9T 20
read -v 5G 1
read -v 9.5T 1
length
''')

READV = each('-f raw a.raw', r'''
readv 0 512 512
readv -v 0 16 20
readv -P 1 0 100 20
readv -P 2 0 100 20
readv -P 0 0 0
readv -qv 0 100
readv -C 0 100
readv 0
readv
readv 0 x
readv x 1
readv 0 3G
readv 0 2G 2G
readv 0 1G 1G 1G
readv 2M 1
readv 1M 512
readv -P x 0 1
readv -x 0 1
readv -s 0 1
readv 0 0 0 0
readv 0 1 0 1
readv 0 1 x
''')

WRITE = each('-f raw a.raw', r'''
write 0 64k
write -P 5 1 3
write -P 0x10 0 1
write -P 010 0 1
write -P 256 0 1
write -P ff 0 1
write -q 0 512
write -C 0 512
write -C -z 0 512
write -p 0 512
write -f 0 512
write -f -z 0 512
write -z 0 64k
write -z -u 0 64k
write -z -n 0 64k
write -z 1 3
write -z 0 1M
write -u 0 64k
write -n 0 512
write -n -u 0 512
write -z -P 1 0 64k
write -z -s short 0 64k
write -P 1 -s short 0 512
write -z 0 3G
write -z -n 0 3G
write 0 3G
write -z 0 x
write -c 0 64k
write -z -c 0 64k
write -c 1 512
write -c 0 513
write -b 0 512
write -b -c 0 512
write -b -z 0 512
write -b 0 3
write -f -c 0 512
write -f -b 0 512
write -u -f -c 0 512
write -s short 0 512
write -s bytes 512 1000
write -s short 0 2
write -s short 0 0
write -s none.raw 0 512
write -s nofile 0 512
write -s . 0 512
write 1M 1
write 1048575 2
write 1M 0
write -P 65 0 0
write
write 0
write 0 1 2
write -x 0 0
write 9223372036854775807 1
write -z 9223372036854775807 1
writev 0 512
writev -P 5 0 100 20
writev -P 999 0 1
writev -f 0 512
writev -q 0 512
writev -C 0 512
writev 0 1 x
writev 0
writev -z 0 512
writev 1M 1
''') + lines(r'''
-f raw a.raw -c 'write -P 7 100 1000' -c 'read -P 7 100 1000' -c 'read -P 1 0 100' -c 'read -v 1090 20'
-f raw a.raw -c 'write -s bytes 0 256' -c 'read -v 0 256'
''') + [f"loose|-r -f raw a.raw -c '{command}'" for command in (
    'write 0 512', 'write -z 0 512', 'writev 0 512', 'discard 0 512', 'truncate 5M', 'aio_write 0 512',
    'write -x 0 0')] + lines(r'''
-r -f raw a.raw -c flush -c 'read 0 512' -c write
''')

AIO = lines(r'''
-f raw a.raw -c 'aio_read 0 512' -c aio_flush
-f raw a.raw -c 'aio_read -v 0 16' -c aio_flush
-f raw a.raw -c 'aio_read -v 0 16 20' -c aio_flush
-f raw a.raw -c 'aio_read -P 1 0 64k' -c aio_flush
-f raw a.raw -c 'aio_read -P 2 0 64k' -c aio_flush
-f raw a.raw -c 'aio_read -P x 0 64k' -c aio_flush
-f raw a.raw -c 'aio_read -q 0 512' -c aio_flush
-f raw a.raw -c 'aio_read -C 0 512' -c aio_flush
-f raw a.raw -c 'aio_read -i 0 512' -c aio_flush
-f raw a.raw -c 'aio_read 2M 512' -c aio_flush
-f raw a.raw -c 'aio_read 0' -c 'aio_read x 1' -c 'aio_read 0 x' -c 'aio_read -x 0 1' -c 'aio_read -x'
-f raw a.raw -c 'aio_read 0 3G' -c 'aio_read 0 2G 2G'
-f raw a.raw -c 'aio_write 0 512' -c aio_flush
-f raw a.raw -c 'aio_write -P 5 0 100 20' -c aio_flush
-f raw a.raw -c 'aio_write -i 0 512' -c aio_flush
-f raw a.raw -c 'aio_write -z 0 512' -c aio_flush
-f raw a.raw -c 'aio_write -u 0 512' -c aio_flush
-f raw a.raw -c 'aio_write -z -u 0 512' -c aio_flush
-f raw a.raw -c 'aio_write -z 0 512 512' -c 'aio_write -z 0' -c 'aio_write -n -z 0 512'
-f raw a.raw -c 'aio_write -z -P 1 0 512' -c aio_flush
-f raw a.raw -c 'aio_write -z 0 3G' -c aio_flush
-f raw a.raw -c 'aio_write -z 9M 1' -c aio_flush
-f raw a.raw -c 'aio_write 9M 1' -c aio_flush
-f raw a.raw -c 'aio_write -f 0 512' -c aio_flush
-f raw a.raw -c 'aio_write -C 0 512' -c aio_flush
-f raw a.raw -c 'aio_write -P 300 0 1' -c 'aio_write 0 x' -c 'aio_write x 1'
-f raw a.raw -c 'aio_flush 3' -c aio_flush
-f raw a.raw -c 'aio_write -P 7 0 64k'
-f raw a.raw -c 'aio_write -P 7 0 64k' -c close -c 'open -o driver=raw a.raw' -c 'read -P 7 0 64k'
-f raw a.raw -c 'aio_write -q -P 7 0 64k' -c 'aio_write -q -P 8 64k 64k' -c aio_flush -c 'read -P 8 64k 64k'
-f raw a.raw -c 'aio_write -q -P 7 0 64k' -c 'aio_write -q -P 8 32k 64k' -c aio_flush -c 'read -P 8 64k 32k'
''')

REST = each('-f raw a.raw', r'''
discard 0 64k
discard -C 0 64k
discard -q 0 64k
discard 1 5
discard 0
discard x 0
discard 0 x
discard 0 3G
discard 2M 512
discard -x 0 0
discard 0 0
discard 9223372036854775807 512
length
length 4
map
map 1
info
info 1
alloc
alloc 0
alloc 1
alloc 0 1M
alloc 512 2M
alloc 512 1
alloc 1 513
alloc 2M 1
alloc 0 9E
alloc 9223372036854775807 9223372036854775807
alloc x
alloc 0 x
alloc 0 1 2
truncate
truncate x
truncate -1
truncate -x 1
truncate 1 2 3 4
truncate -m foo 1M
truncate -m off 2M
truncate -m full 2M
truncate -m falloc 2M
truncate 0
truncate 512
truncate 1537
truncate 1.5M
truncate 9223372036854775808
''') + [f"loose|-f raw a.raw -c '{command}'" for command in (
    'truncate -m metadata 3M', 'truncate 7E', 'truncate 9223372036854775807',
    'truncate -m full 512')] + lines(r'''
-f raw a.raw -c 'truncate 1000000000' -c length -c 'truncate 1537' -c length -c 'truncate 1023' \
    -c length -c map
-f raw a.raw -c 'truncate 1T' -c length -c 'truncate 1500k' -c length -c 'alloc 0 2M' \
    -c 'truncate 0' -c length -c map
-f raw none.raw -c length -c map -c 'alloc 0' -c 'write 0 512' -c 'read 0 0' -c 'read 0 1'
-f raw odd.raw -c length -c 'read -v 1530 20' -c 'alloc 0 1M' -c map -c 'write 1540 3' -c 'read -v 1530 20'
-f raw odd.raw -c 'discard 0 2k' -c 'write -z 1530 20' -c length
-f raw odd.raw -c 'write -P 3 1536 512' -c 'read -P 3 1536 512'
-f raw odd.raw -c 'write 1536 513' -c 'read 2047 2' -c 'read 1600 10' -c 'discard 1600 20'
-f raw odd.raw -c 'aio_write -q -P 3 1540 100' -c 'aio_write -q -P 4 1640 400' -c aio_flush \
    -c 'read -v 1530 518'
''')

OPEN = lines(r'''
-c 'open -o driver=raw a.raw' -c length -c 'open b.raw' -c close -c length
-c 'open nofile'
-c 'open -r -o driver=raw a.raw' -c length -c close
loose|-c 'open -r -o driver=raw a.raw' -c 'write 0 512'
-c 'open -o driver=foo a.raw'
-c 'open -x a.raw'
-c 'open a b'
-c 'open -t foo a.raw'
-c 'open -d foo a.raw'
-c 'open -i foo a.raw'
-c 'open -n -o driver=raw a.raw' -c 'read -P 1 512 100'
-c 'open -rn -t unsafe -d unmap -o driver=raw a.raw' -c length -c close
-c 'open -o driver=raw,file.filename=a.raw' -c length
-c 'open -o driver=raw,file.driver=file,file.filename=a.raw' -c length
-c 'open -o driver=null-co' -c length
-c 'open -o driver=null-co,size=512' -c length -c 'read 0 512' -c 'write 0 513'
-c 'open -o'
-c open
-c 'open -U -o driver=raw a.raw'
-c 'open -o foo=bar,driver=raw a.raw'
-f raw a.raw -c reopen -c 'reopen -r' -c 'reopen -w' -c 'write 0 512'
loose|-f raw a.raw -c 'reopen -r' -c 'write 0 512' -c 'read 0 512'
loose|-r -f raw a.raw -c 'write 0 512' -c 'reopen -w' -c 'write 0 512'
loose|-f raw a.raw -c 'reopen -r -w'
loose|-f raw a.raw -c 'reopen -w -r'
loose|-f raw a.raw -c 'reopen -r -r'
-f raw a.raw -c 'reopen -c none' -c 'read -P 1 0 512' -c 'reopen -c unsafe' -c 'write 0 512'
loose|-f raw a.raw -c 'reopen -c foo'
-f raw a.raw -c 'reopen -o discard=unmap' -c 'discard 0 64k'
loose|-f raw a.raw -c 'reopen -o driver=qcow2'
loose|-f raw a.raw -c 'reopen -o foo=bar'
-f raw a.raw -c 'reopen x'
-f raw a.raw -c 'reopen -x'
-f raw a.raw -c 'reopen -o'
loose|-f raw a.raw -c 'reopen -o read-only=on -r'
loose|-f raw a.raw -c 'reopen -o cache.writeback=on'
loose|-f raw a.raw -c 'reopen -c none -o cache.direct=off'
-f raw a.raw -c 'reopen -o cache.direct=on' -c 'read -P 1 1 1000'
loose|-f raw a.raw -c 'reopen -o cache.direct=maybe'
loose|-f raw a.raw -c 'reopen -o discard=foo'
loose|-f raw a.raw -c 'reopen -o node-name=x'
''')

QCOW2 = each('base.qcow2', r'''
info
map
length
alloc 0 4M
alloc 64k
alloc 64k 1M
alloc 100k 100k
read 0 4M
read -P 2 64k 128k
read -P 0 1M 64k
read -v 65530 20
write 0 64k
write -P 7 100k 3
write -P 7 65535 2
write -c 2M 64k
write -c 2M 32k
write -c 4032k 64k
write -c 66k 64k
write -c 2M 128k
write -c 4095k 1k
write -c 0 0
write -c -z 0 64k
write -z 64k 64k
write -z -u 64k 64k
write -z -n 64k 64k
write -z 100k 3
write -z 0 4M
write -z -u 0 4M
write 4M 1
write -z 4M 1
write -f 0 512
write -z -n 0 3G
discard 64k 64k
discard 64k 100
discard 0 4M
discard 4M 1
truncate 5M
truncate 3M
truncate 0
truncate 100
truncate -m metadata 5M
truncate -m falloc 5M
truncate -m full 5M
''') + each('top.qcow2', r'''
map
alloc 0 8M
info
read -P 2 64k 64k
read -P 3 128k 128k
read -P 0 4M 4M
write -P 9 0 64k
write -P 9 100k 10k
write -z 64k 64k
write -z -u 128k 64k
discard 128k 64k
discard 0 8M
truncate 2M
truncate 16M
aio_write -P 5 64k 200k
''') + lines(r'''
top.qcow2 -c 'write -q -P 9 100k 10k' -c 'read -P 9 100k 10k' -c 'read -P 2 64k 36k' \
    -c 'read -P 3 128k 128k' -c map
top.qcow2 -c 'write -q -z -u 64k 64k' -c map -c 'read -P 0 64k 64k'
top.qcow2 -c 'discard -q 128k 64k' -c map -c 'read -P 0 128k 64k'
top.qcow2 -c 'truncate 16M' -c length -c 'read -P 0 8M 8M' -c map -c info
base.qcow2 -c 'aio_write -q -P 7 0 1M' -c 'aio_write -q -P 8 1M 1M' -c aio_flush -c 'read -P 7 0 1M' -c map
base.qcow2 -c 'aio_write -q -c -P 7 0 64k' -c 'write -q -c -P 8 2M 64k' -c 'read -P 8 2M 64k'
base.qcow2 -c 'reopen -r' -c 'read -P 2 64k 64k' -c 'reopen -w' -c 'write -q -P 9 0 64k' -c 'read -P 9 0 64k'
-r base.qcow2 -c 'read -P 2 64k 64k' -c 'reopen -w' -c 'write -q -P 9 0 64k' -c 'read -P 9 0 64k'
base.qcow2 -c 'reopen -c none' -c 'write -q -P 9 1 64k' -c 'reopen -c writethrough' -c 'read -P 9 1 64k'
loose|base.qcow2 -c 'reopen -o cluster-size=3'
loose|base.qcow2 -c 'reopen -o copy-on-read=on'
loose|base.qcow2 -c 'reopen -o force-share=on'
base.qcow2 -c 'reopen -o driver=qcow2' -c 'write -q -P 9 0 64k'
-s base.qcow2 -c 'write -q -P 9 0 64k' -c 'read -q -P 9 0 64k' -c length
-s -f raw base.qcow2 -c 'write -q -P 9 1M 64k' -c 'read -q -P 9 1M 64k'
-c 'open -s base.qcow2' -c 'write -q -P 9 0 64k' -c 'read -q -P 9 0 64k' -c close -c 'open base.qcow2' \
    -c 'read -q -P 1 0 64k'
--object secret,id=x,data=y base.qcow2 -c length
--object secret,id=x base.qcow2 -c length
-i native base.qcow2 -c length
-i native -n base.qcow2 -c length
-k base.qcow2 -c length
-c 'open -i native base.qcow2' -c length
base.qcow2 -c 'reopen -o detect-zeroes=on' -c 'write -q -P 0 0 64k' -c 'read -P 0 0 64k'
base.qcow2 -c 'reopen -o lazy-refcounts=on' -c 'write -q -P 9 0 64k' \
    -c 'reopen -o lazy-refcounts=off' -c 'read -P 9 0 64k'
base.qcow2 -c 'reopen -o l2-cache-size=1M,l2-cache-entry-size=512' \
    -c 'write -q -P 9 0 64k' -c 'read -P 9 0 64k'
base.qcow2 -c 'reopen -r -o overlap-check=none' -c 'read -P 1 0 64k'
base.qcow2 -c 'reopen -o pass-discard-request=off' -c 'discard -q 0 64k' -c 'read -P 0 0 64k'
loose|base.qcow2 -c 'reopen -o lazy-refcounts=x' -c 'write -q -P 9 0 64k'
loose|base.qcow2 -c 'reopen -o overlap-check=x' -c 'write -q -P 9 0 64k'
loose|base.qcow2 -c 'reopen -o l2-cache-entry-size=3' -c 'write -q -P 9 0 64k'
--image-opts driver=qcow2,file.filename=base.qcow2,lazy-refcounts=on,cache-clean-interval=5 \
    -c 'write -q -P 9 0 64k' -c 'read -P 9 0 64k'
--image-opts driver=qcow2,file.filename=base.qcow2,overlap-check.template=none,overlap-check.active-l1=on \
    -c 'write -q -P 9 0 64k'
loose|base.qcow2 -c 'truncate 3000001' -c length
-f raw base.qcow2 -c info -c 'read -v 0 8'
-c 'open base.qcow2' -c info -c close -c 'open -o driver=qcow2 base.qcow2' -c length
-c 'open -o driver=qcow2,file.filename=base.qcow2' -c length
--image-opts driver=qcow2,file.filename=base.qcow2 -c length
# Each that is on or off has four spellings.
--image-opts driver=qcow2,file.filename=base.qcow2,cache.direct=yes,cache.no-flush=n,lazy-refcounts=true \
    -c length
loose|--image-opts driver=qcow2,file.filename=base.qcow2,cache.direct=1 -c length
loose|-r base.qcow2 -c 'reopen -o read-only=no' -c 'write -q 0 512'
# Options of the image below, which the header names, or which another one takes the place of.
--image-opts driver=qcow2,file.filename=top.qcow2,backing.file.locking=off,backing.cache-size=1M \
    -c 'read -P 1 0 64k'
'json:{"driver":"qcow2","file.filename":"top.qcow2","backing":{}}' -c 'read -P 1 0 64k'
loose|--image-opts driver=qcow2,file.filename=top.qcow2,backing.file.filename=a.raw -c length
--image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=a.raw \
    -c 'read -P 0 0 64k'
-n base.qcow2 -c 'write -q -P 9 1 64k' -c 'read -P 9 1 64k'
-m -n base.qcow2 -c 'write -q -P 9 1 64k' -c 'read -P 9 1 64k'
-t unsafe base.qcow2 -c 'write -q -P 9 1 64k' -c flush
-t directsync base.qcow2 -c 'write -q -P 9 1 64k'
-d off base.qcow2 -c 'discard 64k 64k' -c map
-d off base.qcow2 -c 'write -z -u 64k 64k' -c map
''')

CASES = PROGRAM + SHELL + READ + READV + WRITE + AIO + REST + OPEN + QCOW2
