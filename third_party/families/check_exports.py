"""Whether transformers loads the directories below DIRECTORY and computes the logits that lcx computed.

    python third_party/families/check_exports.py DIRECTORY

Each holds an export of lcx and reference.npz: tokens and logits. Prints the largest difference of each and ends with
exit code 1 where one is above 2e-4, a token has another argmax, or a tensor was not used. tests/convert/test_exports.py
makes the directories and runs this where transformers (5.23.0 was tried) and torch are to be had.
"""

import pathlib
import sys

import numpy as np
import torch
import transformers


def check(directory: pathlib.Path) -> bool:
    with np.load(directory / 'reference.npz') as reference:
        tokens, expected = reference['tokens'], reference['logits']
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        directory, output_loading_info=True, attn_implementation='eager', dtype=torch.float32
    )
    with torch.no_grad():
        found = model.eval()(torch.tensor(tokens).long(), use_cache=False).logits.numpy()
    difference = float(np.max(np.abs(found - expected)))
    same = bool(np.all(found.argmax(-1) == expected.argmax(-1)))
    unused = {
        name: sorted(info[name])
        for name in ('missing_keys', 'unexpected_keys', 'mismatched_keys')
        if info[name]
    }
    limit = getattr(model.config, 'max_position_embeddings', None)
    rope = getattr(model.config, 'rope_parameters', None)
    print(
        f'{directory.name}: difference {difference:.1e}, argmax {same}, {limit} tokens, {rope}, {unused or ""}'
    )
    return difference < 2e-4 and same and not unused


def main() -> int:
    directories = sorted(path.parent for path in pathlib.Path(sys.argv[1]).glob('*/reference.npz'))
    return 0 if directories and all([check(path) for path in directories]) else 1


if __name__ == '__main__':
    sys.exit(main())
