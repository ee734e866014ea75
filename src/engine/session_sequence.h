// Sessions as the Sequences of generation and evaluation.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "engine/sequence.h"

namespace mneme {

/// A Session, owned or borrowed.
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
  std::unique_ptr<Sequence> fork() const override {
    return std::make_unique<SessionSequence>(std::make_unique<Session>(session_->fork()));
  }
  Session& session() noexcept { return *session_; }

 private:
  std::unique_ptr<Session> owned_;
  Session* session_;
};

/// New sessions of one model, all with the same options.
class SessionRunner final : public SequenceRunner {
 public:
  SessionRunner(std::shared_ptr<const Model> model, const SessionOptions& options)
      : model_(std::move(model)), options_(options) {}

  std::unique_ptr<Sequence> start() override {
    return std::make_unique<SessionSequence>(std::make_unique<Session>(model_, options_));
  }

  void append_batch(std::span<Sequence* const> sequences, std::span<const TokenId> ids,
                    const CancelToken* cancel) override {
    sessions_.clear();
    for (Sequence* sequence : sequences)  // all of them come from start()
      sessions_.push_back(&static_cast<SessionSequence*>(sequence)->session());
    Session::append_batch(sessions_, ids, cancel);
  }

  const Tokenizer* tokenizer() const override {
    return model_->has_tokenizer() ? &model_->tokenizer() : nullptr;
  }

 private:
  std::shared_ptr<const Model> model_;
  SessionOptions options_;
  std::vector<Session*> sessions_;
};

}  // namespace mneme
