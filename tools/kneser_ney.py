#!/usr/bin/env python3
"""The baseline of a small language model: an interpolated n-gram model with modified Kneser-Ney smoothing, in numpy.

    tools/kneser_ney.py --shards FOLDER [--held-out FOLDER]         tokens: the same as the model learns from
    tools/kneser_ney.py --train A.jsonl --test B.jsonl --order 5    bytes

prints bits per byte of the held-out text (--json: an object), so that models over different vocabularies compare. End
tokens are predicted like any other token, and contexts run across them, exactly as in training.

Chen and Goodman 1998, section 3: the highest order counts occurrences, lower ones count distinct left neighbours;
discounts D1, D2, D3+ of each order are estimated from its counts of counts; the unigram is interpolated with 1/V.
"""
import argparse
import json

import numpy

import token_shards


class KneserNey:
    def __init__(self, tokens, vocab, order=5):
        self.vocab, self.order = vocab, order
        self.keys, self.counts, suffix = [], [], []  # of each order: (id of the prefix, last token) sorted; adjusted counts
        ranks, vocab = numpy.zeros(len(tokens) + 1, numpy.int64), numpy.int64(vocab)
        for k in range(order):
            size = len(tokens) - k
            keys, first, inverse, counts = numpy.unique(ranks[:size] * vocab + tokens[k:], return_index=True, return_inverse=True,
                                                        return_counts=True)
            suffix.append(ranks[first + 1] if k else None)  # id of the gram without its first token, one order below
            self.keys.append(keys)
            self.counts.append(counts)
            ranks = inverse.reshape(-1).astype(numpy.int64)
        for k in range(order - 1):  # lower orders: distinct left neighbours
            self.counts[k] = numpy.bincount(suffix[k + 1], minlength=len(self.keys[k]))
        self.discounts = [self.estimate(c) for c in self.counts]
        self.totals, self.backoff = [], []
        for k in range(order):
            context, contexts = self.keys[k] // vocab, len(self.keys[k - 1]) if k else 1
            counts, discount = self.counts[k], self.discounts[k]
            total = numpy.bincount(context, weights=counts, minlength=contexts)
            freed = numpy.bincount(context, weights=discount[numpy.minimum(counts, 3)], minlength=contexts)
            self.totals.append(total)
            self.backoff.append(numpy.divide(freed, total, out=numpy.ones(contexts), where=total > 0))

    @staticmethod
    def estimate(counts):
        """[0, D1, D2, D3+]; where counts of counts are missing (tiny texts), the discount is half its most."""
        n = [numpy.count_nonzero(counts == i) for i in range(1, 5)]
        out = numpy.array([0.0, 0.5, 1.0, 1.5])
        if n[0] and n[1]:
            y = n[0] / (n[0] + 2 * n[1])
            for i in range(1, 4):
                if n[i - 1]:
                    out[i] = min(max(i - (i + 1) * y * n[i] / n[i - 1], 0.0), i)
        return out

    def probabilities(self, tokens):
        """p(tokens[i] | up to order - 1 tokens before it), for every i."""
        size = len(tokens)
        p = numpy.full(size, 1.0 / self.vocab)
        ranks = numpy.zeros(size, numpy.int64)  # of the context of each place, this order; -1: never seen
        ranks_by_end = None
        for k in range(self.order):
            if k:  # context of place i: the k tokens before it, a gram of order k that ends at i - 1
                ranks = numpy.concatenate([[-1], ranks_by_end[:-1]])
            key = ranks * self.vocab + tokens
            at = numpy.minimum(numpy.searchsorted(self.keys[k], key), len(self.keys[k]) - 1)
            seen = (self.keys[k][at] == key) & (ranks >= 0)
            counts = numpy.where(seen, self.counts[k][at], 0)
            context = numpy.maximum(ranks, 0)
            total = self.totals[k][context]
            usable = (ranks >= 0) & (total > 0)
            kept = (counts - self.discounts[k][numpy.minimum(counts, 3)]) / numpy.where(usable, total, 1)
            p = numpy.where(usable, numpy.maximum(kept, 0) + self.backoff[k][context] * p, p)
            ranks_by_end = numpy.where(seen, at, -1)
        return p


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", help="folder of token shards; its split validation is predicted, or --held-out")
    parser.add_argument("--held-out", help="folder of token shards whose split train is predicted")
    parser.add_argument("--train", help="JSON lines to count (bytes)")
    parser.add_argument("--test", help="JSON lines to predict (bytes)")
    parser.add_argument("--order", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.shards:
        train, _, vocab = token_shards.load(arguments.shards, "train")
        test, text_bytes, _ = token_shards.load(arguments.held_out or arguments.shards, "train" if arguments.held_out else "validation")
    elif arguments.train and arguments.test:
        train, _, vocab = token_shards.bytes_of(arguments.train)
        test, text_bytes, _ = token_shards.bytes_of(arguments.test)
    else:
        parser.error("name --shards, or --train and --test")
    model = KneserNey(train, vocab, arguments.order)
    bits = -numpy.log2(model.probabilities(test)).sum()
    result = {"order": arguments.order, "train_tokens": len(train), "test_tokens": len(test), "test_bytes": text_bytes,
              "grams": [len(k) for k in model.keys], "bits_per_byte": bits / text_bytes, "bits_per_token": bits / len(test)}
    print(json.dumps(result) if arguments.json else f"{result['bits_per_byte']:.4f} bits per byte, {result['bits_per_token']:.4f} bits per token: "
          f"order {arguments.order} on {len(train)} tokens, tested on {len(test)} tokens of {text_bytes} bytes")


if __name__ == "__main__":
    main()
