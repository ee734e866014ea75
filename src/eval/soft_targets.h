// The distributions over the next token that a model gives to some windows, kept, and what another model (or
// the same with other neurons) loses against them. Far less noisy than the likelihood of the text's own
// tokens: differences of 1e-5 nats show in a few hundred positions.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "mneme/session.h"

namespace mneme {

class SoftTargets {
 public:
  /// Bytes that are kept at most. Windows, and at last positions of the only window, are left out beyond.
  static constexpr uint64_t kMostBytes = uint64_t{512} << 20;

  /// Reads the windows (>= 1, of equal length >= 2), each by a fresh session, and keeps the distributions of
  /// their second halves. Throws what Session::append throws, and Error(corrupt) for logits with NaN.
  SoftTargets(const std::shared_ptr<const Model>& model, std::vector<std::vector<TokenId>> windows,
              const SessionOptions& session, const CancelToken* cancel = nullptr);

  /// Mean over the positions of -sum of P log Q, in nats; the same for any number of threads.
  double cross_entropy(const std::shared_ptr<const Model>& model, const SessionOptions& session,
                       const CancelToken* cancel = nullptr) const;
  uint64_t positions() const { return windows_.size() * kept_; }

 private:
  template <class Visit>
  void read(const std::shared_ptr<const Model>& model, const SessionOptions& session,
            const CancelToken* cancel, Visit visit) const;

  std::vector<std::vector<TokenId>> windows_;
  uint64_t kept_ = 0;  // positions of each window, its last ones
  uint64_t vocab_ = 0;
  std::vector<float> probabilities_;  // [positions, vocab]
};

}  // namespace mneme
