# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cases of img_alike.py, which explains their marks."""


def lines(text):
    return [line for line in text.strip('\n').splitlines() if line and not line.startswith('#')]


PROGRAM = lines('''

bogus
help
-x
--foo create
''')

CREATE = lines(r'''
create
create x.qcow2
create -f qcow2 x.qcow2
made:x.raw|create x.raw 1M
made:x.raw|create -f raw x.raw 1.5k
made:x.raw|create -f raw x.raw 0x1000
made:x.raw|create -f raw x.raw 010
made:x.raw|create -f raw x.raw 1b
made:x.raw|create -f raw x.raw 0
create -f raw x.raw 1.5
create -f raw x.raw 1e3
create -f raw x.raw ''
create -f raw x.raw 1KiB
create -f raw x.raw '1 '
create -f raw x.raw 1X
create -f raw x.raw 4096,
create -f raw x.raw 8E
create -f raw x.raw 99999999999999999999
create -f raw x.raw -1
create -f raw -- x.raw -5
made:x.raw|create -f raw -o preallocation=full,size=1M x.raw
made:x.raw|create x.raw 1M -o preallocation=falloc
loose|create -f raw -o preallocation=metadata x.raw 1M
made:x.qcow2|create -f qcow2 x.qcow2 1G
made:x.qcow2|create -f qcow2 x.qcow2 511
made:x.qcow2|create -f qcow2 x.qcow2 0
made:x.qcow2|create -f qcow2 -q x.qcow2 1M
made:x.qcow2|create -f qcow2 -o size=1M x.qcow2
create -f qcow2 -o size=1M x.qcow2 2M
made:x.qcow2|create -f qcow2 -o compat=0.10 x.qcow2 2M
made:x.qcow2|create -f qcow2 -o compat=v3,preallocation=full x.qcow2 2M
made:x.qcow2|create -f qcow2 -o preallocation=falloc -o cluster_size=4k x.qcow2 2M
made:x.qcow2|create -f qcow2 -o preallocation=metadata x.qcow2 2M
made:x.qcow2|create -f qcow2 -o compression_type=zstd,refcount_bits=1 x.qcow2 2M
made:x.qcow2|create -f qcow2 -o lazy_refcounts=on,cluster_size=2M x.qcow2 2M
made:x.qcow2|create -f qcow2 -o lazy_refcounts x.qcow2 2M
made:x.qcow2|create -f qcow2 -o cluster_size=64k,cluster_size=32k x.qcow2 1M
loose|create -f qcow2 -o compat=0.10,lazy_refcounts=on x.qcow2 2M
loose|create -f qcow2 -o compat=9 x.qcow2 2M
loose|create -f qcow2 -o preallocation=x x.qcow2 2M
loose|create -f qcow2 -o refcount_bits=5 x.qcow2 2M
loose|create -f qcow2 -o cluster_size=1 x.qcow2 1M
loose|create -f qcow2 -o cluster_size=3k x.qcow2 1M
loose|create -f qcow2 -o cluster_size=4M x.qcow2 1M
loose|create -f qcow2 -o compression_type=lzo x.qcow2 1M
loose|create -f qcow2 -o compat=0.10,refcount_bits=1 x.qcow2 7
loose|create -f qcow2 -o compat=0.10,compression_type=zstd x.qcow2 7
create -f qcow2 -o bogus=1 x.qcow2 1M
create -f qcow2 -o cluster_size=bogus x.qcow2 1M
create -f qcow2 -o cluster_size= x.qcow2 1M
create -f qcow2 -o cluster_size x.qcow2 1M
create -f qcow2 -o lazy_refcounts=x x.qcow2 1M
made:x.qcow2|create -f qcow2 -o lazy_refcounts=yes,extended_l2=n x.qcow2 1M
create -f qcow2 -o refcount_bits=x x.qcow2 1M
create -f qcow2 -o size=foo x.qcow2
create -f qcow2 -o '' x.qcow2 1M
create -f qcow2 -o , x.qcow2 1M
loose|create -f qcow2 x.qcow2 100P
loose|create -f qcow2 x.qcow2 7E
create -f qcow2 x.qcow2 1G extra
create -f nope x.qcow2 1G
create -f '' x.qcow2 1G
create -f null-co x.null 1G
loose|create -f qcow2 /nope/x.qcow2 2M
loose|create -f qcow2 '' 1M
create --bogus
create -Z
create -f
create -f raw foo:x.raw 1M
made:./foo:x.raw|create -f raw ./foo:x.raw 1M
made:x.raw|create -f raw file:x.raw 1M
create -f raw json:{} 1M
create -f qcow2 -b base.qcow2 x.qcow2
create -f qcow2 -b data.raw x.qcow2
create -f qcow2 -u -b base.qcow2 x.qcow2 1M
made:x.qcow2|create -f qcow2 -b base.qcow2 -F qcow2 x.qcow2
made:x.qcow2|create -f qcow2 -b base.qcow2 -F qcow2 x.qcow2 128M
made:x.qcow2|create -f qcow2 -b base.qcow2 -F qcow2 x.qcow2 1M
made:x.qcow2|create -f qcow2 -b data.raw -F raw x.qcow2
made:x.qcow2|create -f qcow2 -b odd.raw -F raw x.qcow2
made:sub/x.qcow2|create -f qcow2 -b base.qcow2 -F qcow2 sub/x.qcow2
made:x.qcow2|create -f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 x.qcow2
create -f qcow2 -u -b nope -F qcow2 x.qcow2 1G
create -f qcow2 -u -b nope -F qcow2 x.qcow2
loose|create -f qcow2 -b nope -F qcow2 x.qcow2
loose|create -f qcow2 -b nope -F qcow2 sub/x.qcow2
loose|create -f qcow2 -b base.qcow2 -F bogus x.qcow2 1M
create -f raw -b base.qcow2 -F qcow2 x.raw
create -f qcow2 -b '' -F qcow2 x.qcow2 1M
create -f qcow2 -b x.qcow2 -F qcow2 x.qcow2 1M
loose|create -f qcow2 -F qcow2 x.qcow2 1M
loose|create -f qcow2 -o preallocation=metadata -b base.qcow2 -F qcow2 x.qcow2
create -f qcow2 -u -o 'backing_file=a,,b c,backing_fmt=raw' x.qcow2 1M
create -f null-co -o help
''')

INFO = lines(r'''
info
info data.raw zero.raw
info --output=xml data.raw
info data.raw
info --output=json data.raw
info odd.raw
info nothing.raw
info base.qcow2
info --output=json base.qcow2
info top.qcow2
info --output=json top.qcow2
info -U top.qcow2
info --backing-chain top.qcow2
info --backing-chain --output=json top.qcow2
info --backing-chain sub/top.qcow2
info --backing-chain --output=json sub/top.qcow2
info comp.qcow2
info --output=json zstd.qcow2
info old.qcow2
info --output=json old.qcow2
info small.qcow2
info dirty.qcow2
info --output=json dirty.qcow2
info marked.qcow2
info orphan.qcow2
info --output=json orphan.qcow2
loose|info --backing-chain orphan.qcow2
info url.qcow2
info --output=json url.qcow2
loose|info --backing-chain url.qcow2
loose|info -f qcow2 data.raw
loose|info -f bogus data.raw
info -f raw base.qcow2
info nope
loose|info /tmp
info null-co://
info -f null-co null-co://
info --image-opts driver=qcow2,file.filename=top.qcow2
info --image-opts file.filename=top.qcow2
info null-co://
info --output=json null-co://
info --output=json -f null-co null-co://
info --image-opts driver=null-co,size=4096
info --image-opts driver=null-aio,size=4096
info 'json:{"driver":"null-co"}'
info --output=json 'json:{"driver":"null-co","latency-ns":100,"read-zeroes":true}'
info --image-opts driver=raw,offset=1M,size=1M,file.filename=data.raw
info --image-opts driver=raw,size=0,file.filename=data.raw
info --output=json 'json:{"driver":"raw","size":4096,"file":{"driver":"file","filename":"data.raw"}}'
info --image-opts driver=qcow2,file.driver=raw,file.file.filename=top.qcow2
info --image-opts driver=qcow2,file.driver=raw,file.offset=0,file.file.filename=top.qcow2
info --image-opts driver=qcow2,file.driver=file,file.filename=top.qcow2,backing=
info --image-opts driver=qcow2,file.filename=base.qcow2,backing.driver=qcow2
info --image-opts driver=qcow2,file.filename=top.qcow2,backing=foo
info --output=json 'json:{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"},"backing":null}'
info --output=json --image-opts driver=file,filename=data.raw
info --image-opts driver=qcow2,file.filename=top.qcow2,throttling.iops-total=100
info --image-opts driver=qcow2,file.filename=top.qcow2,file.aio=native
info --image-opts driver=qcow2,file.filename=top.qcow2,file.aio=native,cache.direct=on
info --image-opts driver=raw,file.filename=data.raw,file.aio-max-batch=3
info --image-opts driver=raw,file.filename=data.raw,file.drop-cache=off
info --image-opts driver=raw,file.filename=data.raw,file.x-check-cache-dropped=on
loose|info --image-opts driver=raw,file.filename=data.raw,file.aio-max-batch=x
loose|info --image-opts driver=raw,file.filename=data.raw,file.drop-cache=x
info sub
check -f qcow2 sub
resize sub 1M
create -f raw sub 1M
create -f qcow2 sub 1M
convert -O qcow2 data.raw sub
create null-co:// 1M
create -f qcow2 null-co:// 1M
made:x.qcow2|create -f qcow2 -o nocow=on x.qcow2 1M
made:x.raw|create -f raw -o nocow=on x.raw 1M
create -f raw -o nocow=x x.raw 1M
made:x.raw|create -f raw -o extent_size_hint=1M x.raw 1M
made:x.qcow2|create -f qcow2 -o extent_size_hint=1M x.qcow2 1M
made:x.qcow2|create -f qcow2 -o extent_size_hint=1M,nocow=on x.qcow2 1M
create -f raw -o extent_size_hint=x x.raw 1M
create -f raw -o extent_size_hint=0 x.raw 1M
create -f raw -o extent_size_hint=8G x.raw 1M
made:x.raw|convert -O raw -o extent_size_hint=1M data.raw x.raw
create -f qcow2 -o help
create -f qcow2 -o help x.qcow2
create -f raw -o help
create -f raw -o help x.raw
convert -O qcow2 -o help data.raw x.qcow2
convert -O raw -o help
info --image-opts data.raw
info --image-opts driver=raw,file=data.raw
info 'json:{"driver":"raw","file":"x"}'
info --object secret,id=x,data=y data.raw
info --object secret,id=x data.raw
info --object secret,data=y data.raw
info --object secret,id=x,data=y,foo=1 data.raw
info --object secret,id=1x,data=y data.raw
info --object id=x data.raw
loose|info --object bogus,id=x data.raw
info --image-opts driver=qcow2,file.filename=top.qcow2,lazy-refcounts=on
info --image-opts driver=qcow2,file.filename=top.qcow2,l2-cache-size=1M
info --image-opts driver=qcow2,file.filename=top.qcow2,cache-size=1M
info --image-opts driver=qcow2,file.filename=top.qcow2,refcount-cache-size=1M
info --image-opts driver=qcow2,file.filename=top.qcow2,l2-cache-entry-size=4096
info --image-opts driver=qcow2,file.filename=top.qcow2,cache-clean-interval=10
info --image-opts driver=qcow2,file.filename=top.qcow2,pass-discard-request=on
info --image-opts driver=qcow2,file.filename=top.qcow2,pass-discard-snapshot=on
info --image-opts driver=qcow2,file.filename=top.qcow2,pass-discard-other=on
info --image-opts driver=qcow2,file.filename=top.qcow2,overlap-check=all
info --image-opts driver=qcow2,file.filename=top.qcow2,overlap-check=all,overlap-check.main-header=off
info --image-opts driver=qcow2,file.filename=top.qcow2,overlap-check.template=all
info --image-opts driver=qcow2,file.filename=top.qcow2,overlap-check.main-header=on
info --image-opts driver=qcow2,file.filename=top.qcow2,cache-size=1M,l2-cache-size=2M
info --image-opts driver=qcow2,file.filename=top.qcow2,cache-size=1M,l2-cache-size=1k,refcount-cache-size=1k
info --image-opts driver=qcow2,file.filename=top.qcow2,l2-cache-entry-size=3
info --image-opts driver=qcow2,file.filename=top.qcow2,overlap-check=x
info --image-opts driver=qcow2,file.filename=top.qcow2,refcount-cache-size=1P
loose|info --image-opts driver=qcow2,file.filename=top.qcow2,lazy-refcounts=x
loose|info --image-opts driver=qcow2,file.filename=top.qcow2,cache-size=x
loose|info --image-opts driver=qcow2,file.filename=top.qcow2,overlap-check.x=on
loose|info --image-opts driver=qcow2,file.filename=top.qcow2,pass-discard-other=1
info --image-opts driver=qcow2,file.filename=old.qcow2,lazy-refcounts=on
info --image-opts -f raw driver=qcow2
info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"}}'
info 'json:{"driver":"qcow2","file.filename":"top.qcow2"}'
loose|info 'json:{'
loose|info 'json:[]'
loose|info 'json:{"driver":"foo"}'
loose|info 'json:{"driver":"qcow2","file.filename":"top.qcow2","bogus":1}'
loose|info --image-opts foo
loose|info foo:bar
info file:top.qcow2
info -- --foo
''')

MAP = lines(r'''
map
map --output=xml data.raw
map --output=json data.raw
map data.raw
map odd.raw
map --output=json odd.raw
map --output=json -l 100 -s 950 odd.raw
map base.qcow2
map --output=json base.qcow2
map top.qcow2
map --output=json top.qcow2
map sub/top.qcow2
map --output=json longer.qcow2
map longer.qcow2
map --output=json onraw.qcow2
map onraw.qcow2
map --output=json small.qcow2
map --output=json empty.qcow2
map empty.qcow2
map --output=json comp.qcow2
loose|map comp.qcow2
map --output=json nothing.raw
map --output=json --start-offset=1M --max-length=10M top.qcow2
map --output=json -s 1M -l 10M top.qcow2
map --output=json --start-offset=100 --max-length=1000 top.qcow2
map --start-offset=100k --max-length=1000 top.qcow2
map --output=json --start-offset=2G top.qcow2
map --output=json --max-length=0 top.qcow2
map --output=json --start-offset=x top.qcow2
map --output=json --start-offset= top.qcow2
map --output=json --start-offset=9E top.qcow2
map --output=json --max-length=-1 top.qcow2
map nope
loose|map orphan.qcow2
map --image-opts driver=qcow2,file.filename=top.qcow2
map null-co://
map --output=json null-co://
map --output=json --image-opts driver=null-co,read-zeroes=on,size=1M
map --output=json --image-opts driver=null-aio,size=1M
''')

CHECK = lines(r'''
check
check base.qcow2
check -q base.qcow2
check --output=json base.qcow2
check --output=json top.qcow2
check comp.qcow2
check --output=json comp.qcow2
check small.qcow2
check old.qcow2
check dirty.qcow2
check marked.qcow2
made:dirty.qcow2|findings|check -r all dirty.qcow2
made:marked.qcow2|findings|check -r all marked.qcow2
loose|bench -c 1 -w marked.qcow2
made:dirty.qcow2|findings|resize dirty.qcow2 +1M
check -r all base.qcow2
check data.raw
check -q data.raw
check --output=json data.raw
check nope
check -r foo base.qcow2
check -r
check -T bogus base.qcow2
check --output=xml base.qcow2
check a b
loose|check orphan.qcow2
check leak.qcow2
check -q leak.qcow2
check --output=json leak.qcow2
made:leak.qcow2|check -r leaks leak.qcow2
made:leak.qcow2|check -r leaks --output=json leak.qcow2
made:leak.qcow2|check -q -r all leak.qcow2
check --output=json corrupt.qcow2
check corrupt.qcow2
check -q corrupt.qcow2
status|check -r all corrupt.qcow2
''')

COMPARE = lines(r'''
compare
compare zero.raw
compare a b c
compare base.qcow2 comp.qcow2
compare -s base.qcow2 base.qcow2
compare -s base.qcow2 comp.qcow2
compare base.qcow2 top.qcow2
compare data.raw base.qcow2
compare -q data.raw base.qcow2
compare -s base.qcow2 data.raw
compare zero.raw long.raw
compare long.raw zero.raw
compare -s zero.raw long.raw
compare zero.raw other.raw
compare other.raw empty.qcow2
compare zero.raw full.raw
compare -s zero.raw full.raw
compare -s zero.raw empty.qcow2
compare -s zero.raw sub/base.qcow2
compare zero.raw empty.qcow2
compare -s empty.qcow2 empty.qcow2
compare nothing.raw zero.raw
compare odd.raw odd.raw
compare -p zero.raw empty.qcow2
loose|compare -f qcow2 zero.raw zero.raw
loose|compare -F qcow2 zero.raw zero.raw
compare nope zero.raw
compare zero.raw nope
compare -T foo zero.raw zero.raw
compare -T none zero.raw empty.qcow2
compare -T
compare --output=json a b
compare --image-opts driver=raw,file.filename=zero.raw driver=qcow2,file.filename=empty.qcow2
compare --image-opts -f raw driver=raw,file.filename=zero.raw driver=qcow2,file.filename=empty.qcow2
''')

CONVERT = lines(r'''
convert
convert a
made:x.raw|convert data.raw x.raw
made:x.raw|convert odd.raw x.raw
made:x.raw|convert nothing.raw x.raw
made:x.raw|convert top.qcow2 x.raw
made:x.raw|convert -S 0 data.raw x.raw
made:x.raw|convert -S 64k top.qcow2 x.raw
made:x.raw|convert -t none -T none data.raw x.raw
made:x.raw|convert -r 100M data.raw x.raw
made:x.raw|convert -m 1 data.raw x.raw
made:x.raw|convert -m 16 -W data.raw x.raw
made:x.raw|convert -C data.raw x.raw
made:x.raw|convert data.raw other.raw odd.raw long.raw x.raw
made:x.raw|convert --salvage top.qcow2 x.raw
made:x.raw|convert --image-opts driver=raw,file.filename=data.raw x.raw
made:x.raw|convert -p -q data.raw x.raw
made:x.raw|convert comp.qcow2 x.raw
made:x.raw|convert zstd.qcow2 x.raw
made:x.qcow2|convert -O qcow2 data.raw x.qcow2
made:x.qcow2|convert -O qcow2 odd.raw x.qcow2
made:x.qcow2|convert -O qcow2 top.qcow2 x.qcow2
made:x.qcow2|convert -O qcow2 -o cluster_size=512 onraw.qcow2 x.qcow2
made:x.qcow2|convert -O qcow2 -o cluster_size=2M,compat=0.10 onraw.qcow2 x.qcow2
made:x.qcow2|convert -O qcow2 -o preallocation=metadata data.raw x.qcow2
made:x.qcow2|convert -O qcow2 -o preallocation=full -S 0 data.raw x.qcow2
made:x.qcow2|convert -c -O qcow2 top.qcow2 x.qcow2
made:x.qcow2|convert -c -O qcow2 -o compression_type=zstd top.qcow2 x.qcow2
made:x.qcow2|convert -c -O qcow2 -o cluster_size=4k odd.raw data.raw x.qcow2
made:x.qcow2|convert -W -c -O qcow2 data.raw x.qcow2
made:x.qcow2|convert -O qcow2 -B base.qcow2 -F qcow2 mid.qcow2 x.qcow2
made:x.qcow2|convert -c -O qcow2 -B base.qcow2 -F qcow2 mid.qcow2 x.qcow2
made:x.qcow2|convert -O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 mid.qcow2 x.qcow2
made:x.qcow2|convert -O qcow2 -o size=1M data.raw x.qcow2
made:long.raw|convert -n zero.raw long.raw
made:full.raw|convert -n zero.raw full.raw
made:zero.raw|convert -n --target-is-zero other.raw zero.raw
made:onraw.qcow2|convert -n --target-is-zero -O qcow2 other.raw onraw.qcow2
made:x.qcow2|convert --bitmaps -O qcow2 base.qcow2 x.qcow2
made:x.qcow2|convert --bitmaps --skip-broken-bitmaps -O qcow2 base.qcow2 x.qcow2
convert --skip-broken-bitmaps -O qcow2 base.qcow2 x.qcow2
convert --bitmaps -O raw base.qcow2 x.raw
convert --bitmaps -O qcow2 data.raw x.qcow2
convert --bitmaps -O qcow2 old.qcow2 x.qcow2
convert --bitmaps -O qcow2 -o compat=0.10 base.qcow2 x.qcow2
convert --bitmaps -O qcow2 base.qcow2 mid.qcow2 x.qcow2
made:base.qcow2|convert -n -O qcow2 data.raw base.qcow2
made:base.qcow2|convert -n --target-image-opts data.raw driver=qcow2,file.filename=base.qcow2
convert -p -O qcow2 zero.raw x.qcow2
convert -n -O null-co data.raw null-co://
convert -O bogus data.raw x.raw
loose|convert -f bogus data.raw x.raw
loose|convert -f qcow2 data.raw x.raw
convert nope x.raw
loose|convert data.raw /nope/x.raw
loose|made:data.raw|convert data.raw data.raw
convert -O raw -c data.raw x.raw
convert -O qcow2 -o bogus=1 data.raw x.qcow2
loose|convert -O qcow2 -o cluster_size=3 data.raw x.qcow2
convert -O qcow2 -o '' data.raw x.qcow2
convert -O qcow2 -o preallocation=metadata -c data.raw x.qcow2
convert -O qcow2 -B base.qcow2 top.qcow2 x.qcow2
loose|convert -O qcow2 -F qcow2 top.qcow2 x.qcow2
convert -O raw -B base.qcow2 -F qcow2 top.qcow2 x.raw
convert -O qcow2 -B base.qcow2 -F qcow2 data.raw zero.raw x.qcow2
loose|convert -O qcow2 -n data.raw nope.qcow2
convert -O qcow2 -n -o cluster_size=4k data.raw base.qcow2
loose|convert -O raw -n data.raw zero.raw
convert -O raw --target-is-zero data.raw x.raw
convert -O qcow2 --target-image-opts data.raw driver=qcow2,file.filename=x.qcow2
loose|convert -n --target-image-opts data.raw driver=qcow2,file.filename=nope.qcow2
convert -S 1 data.raw x.raw
convert -S foo data.raw x.raw
convert -S 1000 data.raw x.raw
convert -S 32M data.raw x.raw
convert -m 0 data.raw x.raw
convert -m 17 data.raw x.raw
convert -m x data.raw x.raw
convert -r x data.raw x.raw
convert -t x data.raw x.raw
convert -T x data.raw x.raw
convert -C -c -O qcow2 data.raw x.qcow2
convert -C -S 4k -O qcow2 data.raw x.qcow2
convert --salvage -C data.raw x.raw
convert --image-opts -f raw driver=raw,file.filename=data.raw x.raw
loose|convert --image-opts foo x.raw
convert -O null-co data.raw null-co://
convert -u data.raw x.raw
''')

RESIZE = lines(r'''
resize
resize base.qcow2
resize base.qcow2 1M 2M
resize 1M base.qcow2
made:base.qcow2|resize base.qcow2 128M
made:base.qcow2|resize base.qcow2 +1M
made:base.qcow2|resize -q base.qcow2 +512
made:base.qcow2|resize --shrink base.qcow2 -1M
made:base.qcow2|resize --shrink base.qcow2 512k
made:base.qcow2|resize --preallocation=full empty.qcow2 +64k
made:empty.qcow2|resize --preallocation=metadata empty.qcow2 +1M
made:empty.qcow2|resize --preallocation=falloc empty.qcow2 +1M
made:base.qcow2|resize base.qcow2 64M
resize base.qcow2 -1M
resize base.qcow2 -q 1M
resize --shrink base.qcow2 -10G
resize base.qcow2 foo
resize base.qcow2 +foo
resize base.qcow2 +
resize base.qcow2 ''
resize base.qcow2 0
loose|resize base.qcow2 7E
loose|resize base.qcow2 +7E
resize --preallocation=bogus base.qcow2 +64k
resize --preallocation=full base.qcow2 --shrink -64k
made:zero.raw|resize -f raw zero.raw 2M
made:zero.raw|resize -f raw zero.raw +1000
made:zero.raw|resize -f raw zero.raw +0
made:zero.raw|resize -f raw --preallocation=falloc zero.raw +1000
made:long.raw|resize -f raw --shrink long.raw 1M
loose|made:zero.raw|resize -f raw --preallocation=metadata zero.raw +1000
silent|made:zero.raw|resize zero.raw 2M
resize -f raw zero.raw 513k
resize nope +1M
''')

DD = lines(r'''
dd
dd foo
dd if=data.raw
dd of=x
made:x.raw|dd if=data.raw of=x.raw
made:x.raw|dd if=data.raw of=x.raw bs=1M count=1 skip=0
made:x.raw|dd if=data.raw of=x.raw bs=1M count=3 skip=2
made:x.raw|dd if=data.raw of=x.raw bs=1000 count=1G
made:x.raw|dd if=data.raw of=x.raw skip=1 bs=1M
made:x.raw|dd if=odd.raw of=x.raw bs=100
made:x.raw|dd -U if=data.raw of=x.raw
made:x.qcow2|dd -f raw -O qcow2 if=data.raw of=x.qcow2 bs=64k count=40 skip=2
made:x.raw|dd --image-opts if=driver=raw,file.filename=data.raw of=x.raw
made:x.raw|loose|dd skip=1M bs=1M if=data.raw of=x.raw
dd foo=bar if=data.raw of=x.raw
dd bs=0 if=data.raw of=x.raw
dd bs=-1 if=data.raw of=x.raw
dd bs=x if=data.raw of=x.raw
dd bs=3G if=data.raw of=x.raw
dd count=x if=data.raw of=x.raw
dd skip=-1 if=data.raw of=x.raw
dd if=data.raw of=x.raw seek=3
dd if=data.raw of=x.raw conv=sync
dd if=nope of=x.raw
loose|dd if=data.raw of=/nope/x.raw
loose|dd -O bogus if=data.raw of=x.raw
''')

MEASURE = lines(r'''
measure
measure --size 1G
measure --size 513
measure --size 1G -O qcow2
measure --size 1G -O qcow2 --output=json
measure --size 0 -O qcow2
measure --size 513 -O qcow2
measure --size 1G -O qcow2 -o cluster_size=4k
measure --size 1T -O qcow2 -o cluster_size=512
measure --size 1G -O qcow2 -o refcount_bits=64
measure --size 1G -O qcow2 -o preallocation=full
measure --size 1G -O qcow2 -o size=2G
measure -O qcow2 -o backing_file=foo,backing_fmt=raw --size 1G
measure -O qcow2 base.qcow2
measure -O qcow2 --output=json base.qcow2
measure -O qcow2 top.qcow2
measure -O qcow2 comp.qcow2
measure -O qcow2 old.qcow2
measure -O qcow2 data.raw
measure -O qcow2 odd.raw
measure -O qcow2 -o cluster_size=512 onraw.qcow2
measure -O qcow2 -o compat=0.10 base.qcow2
measure -O qcow2 -o compat=1.1 --output=json base.qcow2
measure -O raw data.raw
measure -O raw base.qcow2
measure -U -O qcow2 base.qcow2
measure -O qcow2 --image-opts driver=raw,file.filename=data.raw
measure -O qcow2 --image-opts --size 1G
measure -O qcow2 -o extended_l2=on --size 1G
measure -O qcow2 -o nocow=on --size 1G
measure -O qcow2 -o extent_size_hint=1M --size 1G
measure -O qcow2 -o extended_l2=on,cluster_size=16k --size 1G
measure -O qcow2 -o extended_l2=on,cluster_size=8k --size 1G
measure -O qcow2 -o extended_l2=on,cluster_size=2M --size 1T
measure -O qcow2 -o extended_l2=on base.qcow2
measure -O qcow2 -o help --size 1G
measure -O qcow2 -o help base.qcow2
measure -o '?' --size 1G
measure -O qcow2 -o backing_file=x base.qcow2
measure -O qcow2 -o backing_file=x top.qcow2
measure -O qcow2 -o backing_file=x --size 1G
measure -O qcow2 -o backing_file=x,backing_fmt=qcow2 data.raw
measure -O qcow2 -o data_file=x --size 1G
measure -O qcow2 -o encryption=on --size 1G
measure -O qcow2 --object secret,id=x,data=y base.qcow2
measure --size 1G -O qcow2 -o bogus=full
loose|measure --size 1G -O qcow2 -o cluster_size=3
measure --size 1G -O bogus
measure --size 1G -O null-co
measure --size x
measure --size 9E
measure --size -1
measure --size 1G foo
measure -f qcow2 --size 1
measure --output=xml --size 1
measure -O qcow2 a b
measure nope
loose|measure -O qcow2 --size 7E
''')

BENCH = lines(r'''
bench
bench a b
bench nope
bench -c 1000 -f raw data.raw
bench -q -c 10 -f raw data.raw
bench -c 1000 -f raw -w data.raw
bench -c 1000 -f raw -w --flush-interval=100 data.raw
bench -c 100 -f raw -w --flush-interval=100 --no-drain --pattern=3 -d 10 -s 8k -S 16k -o 1M data.raw
bench -c 100 base.qcow2
bench -c 100 -w base.qcow2
bench -c 100 -f raw -w null-co://
bench -c 100 --image-opts driver=null-co,read-zeroes=on,size=1G
bench -c 0 -f raw data.raw
bench -c 10 -s 0 -f raw data.raw
bench -c 10 -S 0 -f raw data.raw
bench -c 3 -s 4k -o 3M -S 1 -f raw data.raw
bench -c 3 -s 512 -f raw odd.raw
bench -c 10 -n -t none -f raw data.raw
bench -c 10 -i io_uring -f raw data.raw
bench -c 10 -i threads -f raw data.raw
bench -c 1 --force-share data.raw
loose|bench -c 3 -s 8M -f raw data.raw
loose|bench -c 10 -o 100M -f raw data.raw
loose|bench -c 1 -w --force-share -f raw data.raw
bench -c 10 -f raw -w --flush-interval=9 -d 10 data.raw
bench -c 10 -f raw --flush-interval=100 data.raw
bench -c 10 -f raw -w --pattern=256 data.raw
bench -c x data.raw
bench -c -1 data.raw
bench -d x data.raw
bench -s x data.raw
bench -s 3G data.raw
bench -S 3G data.raw
bench -o x data.raw
bench -o -1 data.raw
bench -t bogus data.raw
bench -i bogus data.raw
bench -i native data.raw
bench --aio=x
''')

COMMIT = lines(r'''
commit
commit -x top.qcow2
commit top.qcow2 mid.qcow2
commit base.qcow2
commit -f raw data.raw
commit -b nosuch top.qcow2
commit -b top.qcow2 top.qcow2
commit -f nofmt top.qcow2
commit -t nomode top.qcow2
commit -r x top.qcow2
commit nosuch.qcow2
commit orphan.qcow2
commit --image-opts -f qcow2 driver=qcow2,file.filename=top.qcow2
made:top.qcow2|made:mid.qcow2|made:base.qcow2|commit top.qcow2
made:top.qcow2|made:mid.qcow2|made:base.qcow2|commit -d top.qcow2
made:top.qcow2|made:mid.qcow2|made:base.qcow2|commit -q top.qcow2
made:top.qcow2|made:mid.qcow2|made:base.qcow2|commit -p -q top.qcow2
made:top.qcow2|made:base.qcow2|commit -b base.qcow2 top.qcow2
made:top.qcow2|made:mid.qcow2|commit -b mid.qcow2 top.qcow2
made:top.qcow2|made:mid.qcow2|commit -t none -r 1G -f qcow2 top.qcow2
made:mid.qcow2|made:base.qcow2|commit mid.qcow2
made:mid.qcow2|made:base.qcow2|made:top.qcow2|commit -d mid.qcow2
made:top.qcow2|made:mid.qcow2|commit --image-opts driver=qcow2,file.filename=top.qcow2
made:longer.qcow2|made:short.qcow2|commit longer.qcow2
made:longer.qcow2|made:short.qcow2|commit -d longer.qcow2
made:onraw.qcow2|made:data.raw|commit onraw.qcow2
made:sub/top.qcow2|made:sub/mid.qcow2|commit sub/top.qcow2
''')

REBASE = lines(r'''
rebase
rebase --bogus top.qcow2
rebase -F
rebase top.qcow2
rebase -b base.qcow2
rebase -b base.qcow2 -F qcow2 top.qcow2 mid.qcow2
rebase -b base.qcow2 top.qcow2
rebase -b nosuch -F qcow2 top.qcow2
rebase -b nosuch top.qcow2
rebase -b base.qcow2 -F nofmt top.qcow2
rebase -b base.qcow2 -F qcow2 -f nofmt top.qcow2
rebase -b base.qcow2 -F qcow2 -t nomode top.qcow2
rebase -b base.qcow2 -F qcow2 -T nomode top.qcow2
rebase -b base.qcow2 -F qcow2 nosuch.qcow2
rebase -b base.qcow2 -F qcow2 orphan.qcow2
rebase -b base.qcow2 -F qcow2 -f raw data.raw
rebase -u -b base.qcow2 -F qcow2 -f raw data.raw
rebase -b base.qcow2 -F raw orphan.qcow2
loose|rebase -U -b base.qcow2 -F qcow2 top.qcow2
loose|rebase -b top.qcow2 -F qcow2 top.qcow2
loose|rebase -b base.qcow2 -F qcow2 marked.qcow2
made:top.qcow2|rebase -b base.qcow2 -F qcow2 top.qcow2
made:top.qcow2|rebase -p -q -b base.qcow2 -F qcow2 top.qcow2
made:top.qcow2|rebase -b mid.qcow2 -F qcow2 top.qcow2
made:top.qcow2|rebase -b '' top.qcow2
made:top.qcow2|rebase -b data.raw -F raw top.qcow2
made:top.qcow2|rebase -b odd.raw -F raw top.qcow2
made:top.qcow2|rebase -b nothing.raw -F raw top.qcow2
made:top.qcow2|rebase -t none -T none -b long.raw -F raw top.qcow2
made:top.qcow2|rebase -b small.qcow2 -F qcow2 top.qcow2
made:top.qcow2|rebase -b comp.qcow2 -F qcow2 -f qcow2 top.qcow2
made:top.qcow2|rebase --image-opts -b base.qcow2 -F qcow2 driver=qcow2,file.filename=top.qcow2
rebase --image-opts -f qcow2 -b base.qcow2 -F qcow2 driver=qcow2,file.filename=top.qcow2
made:longer.qcow2|rebase -b base.qcow2 -F qcow2 longer.qcow2
made:longer.qcow2|rebase -b empty.qcow2 -F qcow2 longer.qcow2
made:longer.qcow2|rebase -b '' longer.qcow2
made:onraw.qcow2|rebase -b short.qcow2 -F qcow2 onraw.qcow2
made:onraw.qcow2|rebase -b '' onraw.qcow2
made:empty.qcow2|rebase -b base.qcow2 -F qcow2 empty.qcow2
made:small.qcow2|rebase -b base.qcow2 -F qcow2 small.qcow2
made:small.qcow2|rebase -b '' small.qcow2
made:sub/top.qcow2|rebase -b base.qcow2 -F qcow2 sub/top.qcow2
made:sub/top.qcow2|rebase -b ../data.raw -F raw sub/top.qcow2
made:mid.qcow2|rebase -b '' mid.qcow2
made:orphan.qcow2|rebase -u -b base.qcow2 -F qcow2 orphan.qcow2
made:top.qcow2|rebase -u -b base.qcow2 -F qcow2 top.qcow2
made:top.qcow2|rebase -u -b '' top.qcow2
made:top.qcow2|rebase -u top.qcow2
made:top.qcow2|rebase -u -p -b base.qcow2 -F qcow2 top.qcow2
rebase -u -b base.qcow2 top.qcow2
rebase -u -b base.qcow2 -F nofmt top.qcow2
rebase -u -b nosuch -F qcow2 top.qcow2
''')

CASES = (PROGRAM + COMMIT + CREATE + INFO + MAP + CHECK +
         COMPARE + CONVERT + REBASE + RESIZE + DD + MEASURE + BENCH)
