"""Attention over tokens that lie on many devices.

from lcx.parallel import shard
attend = shard('ring', {'name': 'blockwise'}, mesh, order='zigzag')
out = attend(q, k, v, where, both(causal, same_segment))
"""

from lcx.parallel.orders import ORDERS
from lcx.parallel.sequence import STRATEGIES, shard

__all__ = ['ORDERS', 'STRATEGIES', 'shard']
