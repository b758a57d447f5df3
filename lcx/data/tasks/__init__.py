"""Synthetic tasks: text or tokens made to order, at any length, with a known answer."""

from lcx.data.tasks.api import SizedTask, StringTask, Task
from lcx.data.tasks.babi import AfraidOf, HowMany, WhereBefore, WherePerson, WhereThing, WhetherThere
from lcx.data.tasks.binary_arithmetic import BinaryAddition, BinaryMultiplication
from lcx.data.tasks.bucket_sort import BucketSort
from lcx.data.tasks.compute_sqrt import ComputeSqrt
from lcx.data.tasks.copy import Copy
from lcx.data.tasks.cycle_navigation import CycleNavigation
from lcx.data.tasks.duplicate_string import DuplicateString
from lcx.data.tasks.even_pairs import EvenPairs
from lcx.data.tasks.forms import FORMS
from lcx.data.tasks.induction_heads import InductionHeads
from lcx.data.tasks.listops import ListOps
from lcx.data.tasks.missing_duplicate import MissingDuplicate
from lcx.data.tasks.modular_arithmetic import ModularArithmetic
from lcx.data.tasks.modular_arithmetic_brackets import ModularArithmeticBrackets
from lcx.data.tasks.mqar import Mqar
from lcx.data.tasks.odds_first import OddsFirst
from lcx.data.tasks.parity_check import ParityCheck
from lcx.data.tasks.passkey import Passkey
from lcx.data.tasks.reverse_string import ReverseString
from lcx.data.tasks.selective_copy import SelectiveCopy
from lcx.data.tasks.solve_equation import SolveEquation
from lcx.data.tasks.stack_manipulation import StackManipulation

TASKS = {
    # Finding and repeating.
    'passkey': Passkey,
    'copy': Copy,
    'induction_heads': InductionHeads,
    'mqar': Mqar,
    'selective_copy': SelectiveCopy,
    # The 15 of Delétang et al. 2023: regular,
    'even_pairs': EvenPairs,
    'modular_arithmetic': ModularArithmetic,
    'parity_check': ParityCheck,
    'cycle_navigation': CycleNavigation,
    # deterministic context-free,
    'stack_manipulation': StackManipulation,
    'reverse_string': ReverseString,
    'modular_arithmetic_brackets': ModularArithmeticBrackets,
    'solve_equation': SolveEquation,
    # and context-sensitive.
    'duplicate_string': DuplicateString,
    'missing_duplicate': MissingDuplicate,
    'odds_first': OddsFirst,
    'binary_addition': BinaryAddition,
    'binary_multiplication': BinaryMultiplication,
    'compute_sqrt': ComputeSqrt,
    'bucket_sort': BucketSort,
    # Nested lists.
    'listops': ListOps,
    # Stories in filler.
    'babi_qa1': WherePerson,
    'babi_qa2': WhereThing,
    'babi_qa3': WhereBefore,
    'babi_qa6': WhetherThere,
    'babi_qa7': HowMany,
    'babi_qa15': AfraidOf,
}

__all__ = ['FORMS', 'TASKS', 'BucketSort', 'Copy', 'Passkey', 'SizedTask', 'StringTask', 'Task']
