"""Synthetic tasks: text or tokens made to order, at any length, with a known answer."""

from lcx.data.tasks.passkey import Passkey

TASKS = {'passkey': Passkey}

__all__ = ['TASKS', 'Passkey']
