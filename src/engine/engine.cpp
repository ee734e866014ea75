#include "core/fail.h"
#include "engine/scheduler.h"
#include "engine/session_sequence.h"

namespace mneme {
namespace {

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
