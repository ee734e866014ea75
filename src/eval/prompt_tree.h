// Many prompts that begin alike, each token of a common beginning read once: prompts are taken in
// lexicographic order, and where later ones branch off, the sequence is forked and kept.
//
// An evaluation's prompts share most of their tokens (the same haystack with the needle elsewhere, several
// questions about one document), and reading them is what it costs.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/sequence.h"

namespace mneme {

/// Token ids in parts that lie elsewhere, so that a hundred prompts of one long text hold it once.
struct Prompt {
  std::vector<std::span<const TokenId>> parts;

  uint64_t size() const noexcept;
  /// ids[first, last), in one piece.
  std::vector<TokenId> ids(uint64_t first, uint64_t last) const;
};

/// How many leading ids two prompts share.
uint64_t common_prefix(const Prompt& a, const Prompt& b);

struct PromptTree {
  struct Visit {
    size_t prompt = 0;            // index in the list that was given
    uint64_t start = 0;           // tokens that an earlier visit has read
    std::vector<uint64_t> forks;  // positions above `start`, ascending, at which later visits branch off
  };
  std::vector<Visit> visits;
  uint64_t total = 0;   // tokens of all prompts
  uint64_t unique = 0;  // of these, tokens that have to be read
};

/// Plans the order. The last token of a prompt is never shared: its logits are what the answer begins with.
/// Throws Error(invalid_argument) for an empty prompt.
PromptTree plan_prompts(std::span<const Prompt> prompts);

struct PromptVisitor {
  /// A prompt has been read but for its last token, which is `last`. The sequence is the visitor's to use up.
  std::function<void(size_t prompt, Sequence& sequence, TokenId last)> answer;
  std::function<void(uint64_t tokens)> progress;  // tokens read since the last call; may be empty
  const CancelToken* cancel = nullptr;
};

/// Reads the prompts of a plan. Besides one sequence it keeps a fork for each open branch. Throws what
/// Sequence::append and the visitor throw.
void read_prompts(SequenceRunner& runner, std::span<const Prompt> prompts, const PromptTree& tree,
                  const PromptVisitor& visitor);

}  // namespace mneme
