"""One experiment on many devices: the mesh, what lies where, attention over tokens that lie on many, and pipelines.

from lcx.parallel import shard
attend = shard('ring', {'name': 'blockwise'}, mesh, order='zigzag')
out = attend(q, k, v, where, both(causal, same_segment))
"""

from lcx.parallel.mesh import AXES, MeshConfig
from lcx.parallel.orders import ORDERS
from lcx.parallel.schedules import SCHEDULES
from lcx.parallel.sequence import STRATEGIES, shard

__all__ = ['AXES', 'ORDERS', 'SCHEDULES', 'STRATEGIES', 'MeshConfig', 'shard']
