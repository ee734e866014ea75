#include "core/fail.h"
#include "engine/scheduler.h"
#include "engine/session_sequence.h"

namespace mneme {
namespace {

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

std::unique_ptr<SequenceRunner> make_runner(std::shared_ptr<const Model> model,
                                            const SessionOptions& options) {
  require(model != nullptr, ErrorCode::invalid_argument, "Engine needs a model, but the pointer is null");
  return std::make_unique<SessionRunner>(std::move(model), options);
}

}  // namespace

class Engine::Impl {
 public:
  Impl(std::shared_ptr<const Model> model, const EngineOptions& options)
      : scheduler(make_runner(std::move(model), options.session), options.max_batch) {}
  Scheduler scheduler;
};

Engine::Engine(std::shared_ptr<const Model> model, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(std::move(model), options)) {}
Engine::~Engine() = default;

std::future<GenerateResult> Engine::submit(GenerateRequest request) {
  return impl_->scheduler.submit(std::move(request));
}

}  // namespace mneme
