"""Models for `embed=`: wrappers of libraries and servers that turn texts into vectors, and a cache in front of any.

None of them is needed: any callable is a model. None downloads anything.
"""

from nopokedb.embedding.cached import Cached
from nopokedb.embedding.fastembed import FastEmbed
from nopokedb.embedding.model2vec import Model2Vec
from nopokedb.embedding.openai_compatible import OpenAICompatible
from nopokedb.embedding.sentence_transformers import SentenceTransformers

__all__ = ["Cached", "FastEmbed", "Model2Vec", "OpenAICompatible", "SentenceTransformers"]
