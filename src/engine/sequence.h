// What generation needs of a model, and no more: sequences that take tokens and give logits. Sessions
// implement it for real models; tests implement it with a few lines of arithmetic, so that stopping,
// streaming and scheduling are tested without weights.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "mneme/session.h"

namespace mneme {

/// One sequence: Session's part that generation uses, with the same contracts and errors.
class Sequence {
 public:
  virtual ~Sequence() = default;
  /// Processes ids in chunks of chunk() and returns the logits after the last: [vocab].
  virtual std::span<const float> append(std::span<const TokenId> ids, const AppendOptions& options) = 0;
  virtual std::span<const float> logits() const = 0;
  virtual const std::vector<TokenId>& tokens() const = 0;
  virtual uint64_t context() const = 0;  // most tokens that it can hold
  virtual uint32_t chunk() const = 0;    // tokens per prefill pass
  /// Another sequence that goes on from here. Both share what they have in common.
  virtual std::unique_ptr<Sequence> fork() const = 0;
};

/// Makes sequences of one model and advances several of them by one token each.
class SequenceRunner {
 public:
  virtual ~SequenceRunner() = default;
  virtual std::unique_ptr<Sequence> start() = 0;
  /// As Session::append_batch: on an error no sequence has advanced.
  virtual void append_batch(std::span<Sequence* const> sequences, std::span<const TokenId> ids,
                            const CancelToken* cancel) = 0;
  virtual const Tokenizer* tokenizer() const = 0;  // null if the model has none
};

}  // namespace mneme
