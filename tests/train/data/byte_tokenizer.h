// A tokenizer of 256 bytes, "<|endoftext|>" (id 256) and a few merges: what tests of data need, and no file.
#pragma once
#include <memory>

#include "text/tokenizer_spec.h"
#include "text/word_model.h"

namespace mneme::train {

inline constexpr int64_t kByteTokenizerEnd = 256;

/// `extra` more pieces ("x0", "x1", ...) change the fingerprint and, beyond 65,536, the width of a token.
inline std::unique_ptr<Tokenizer> byte_tokenizer(uint32_t extra = 0) {
  TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    std::string piece;
    append_byte_alphabet(piece, std::string(1, static_cast<char>(byte)));
    spec.vocab.add(piece);
  }
  spec.vocab.add("<|endoftext|>");
  spec.added.push_back({.id = 256, .content = "<|endoftext|>", .special = true});
  spec.eos = 256;
  for (const char* pair : {"th", "he", "in"}) {
    spec.vocab.add(pair);
    const auto id = static_cast<TokenId>(spec.vocab.size() - 1);
    spec.merges.push_back({spec.vocab.find({pair, 1}), spec.vocab.find({pair + 1, 1}), id});
  }
  for (uint32_t i = 0; i < extra; ++i) spec.vocab.add("x" + std::to_string(i));
  PreTokenizerStep step;
  step.kind = PreTokenizerStep::Kind::split_regex;
  step.pattern = kGpt2Pattern;
  spec.pre_tokenizer.push_back(step);
  step = {};
  step.kind = PreTokenizerStep::Kind::byte_level;
  spec.pre_tokenizer.push_back(step);
  spec.decoder.byte_level = true;
  return make_tokenizer(std::move(spec));
}

}  // namespace mneme::train
