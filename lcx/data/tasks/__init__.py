"""Synthetic tasks: text or tokens made to order, at any length, with a known answer."""

from lcx.data.tasks.api import StringTask, Task
from lcx.data.tasks.bucket_sort import BucketSort
from lcx.data.tasks.copy import Copy
from lcx.data.tasks.passkey import Passkey

TASKS = {'passkey': Passkey, 'copy': Copy, 'bucket_sort': BucketSort}

__all__ = ['TASKS', 'BucketSort', 'Copy', 'Passkey', 'StringTask', 'Task']
