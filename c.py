import sys,time,json
from runtime.contrast.measure import *
t=time.time()
p=Plan(sys.argv[1], rounds=int(sys.argv[2]), rows=sys.argv[3:])
r=contrast(p, lambda x: print(f"{time.time()-t:6.1f} {x}", file=sys.stderr))
for x in r:
    print(x.row, {m.key: (x.median(m.key) or 0)*m.scale for m in METRICS}, x.missing, x.isolation, x.guest_memory, x.density)
