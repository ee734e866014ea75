// A Session as a Sequence, owned or borrowed.
#pragma once
#include <memory>
#include <utility>

#include "engine/sequence.h"

namespace mneme {

class SessionSequence final : public Sequence {
 public:
  explicit SessionSequence(Session& session) : session_(&session) {}
  explicit SessionSequence(std::unique_ptr<Session> session)
      : owned_(std::move(session)), session_(owned_.get()) {}

  std::span<const float> append(std::span<const TokenId> ids, const AppendOptions& options) override {
    return session_->append(ids, options);
  }
  std::span<const float> logits() const override { return session_->logits(); }
  const std::vector<TokenId>& tokens() const override { return session_->tokens(); }
  uint64_t context() const override {
    const uint32_t limit = session_->options().max_context;
    return limit != 0 ? limit : session_->model().config().context;
  }
  uint32_t chunk() const override { return session_->options().chunk; }
  Session& session() noexcept { return *session_; }

 private:
  std::unique_ptr<Session> owned_;
  Session* session_;
};

}  // namespace mneme
