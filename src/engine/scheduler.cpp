#include "engine/scheduler.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>

#include "core/fail.h"
#include "engine/generation.h"

namespace mneme {

struct Scheduler::Job {
  explicit Job(GenerateRequest asked)
      : request(std::move(asked)), cancel(request.cancel), started(Generation::Clock::now()) {
    request.cancel = &cancel;
  }

  GenerateRequest request;
  CancelToken cancel;  // the user's, or the scheduler's when it goes away
  const Generation::Clock::time_point started;
  std::promise<GenerateResult> promise;
  std::optional<Generation> generation;
  std::unique_ptr<Sequence> sequence;
  size_t prefilled = 0;          // prompt tokens processed
  std::optional<TokenId> token;  // sampled and not yet processed
  std::exception_ptr error;

  bool done() const noexcept { return error != nullptr || generation->ended(); }

  // Runs a part of this request; whatever it throws becomes the request's own end.
  template <class Action>
  void guard(Action&& action) noexcept {
    try {
      action();
    } catch (const Error& failure) {
      if (failure.code() == ErrorCode::cancelled && cancel.cancelled())
        end_cancelled();
      else
        error = std::current_exception();
    } catch (...) {
      error = std::current_exception();
    }
  }

  void end_cancelled() noexcept {
    try {
      generation->end(StopReason::cancelled);
    } catch (...) {
      error = std::current_exception();
    }
  }

  void sample(std::span<const float> logits) { token = generation->next(logits, *sequence); }

  // Gives the result or the error to the future.
  void settle() {
    sequence.reset();
    if (error != nullptr)
      promise.set_exception(error);
    else
      promise.set_value(generation->take());
  }
};

Scheduler::Scheduler(std::unique_ptr<SequenceRunner> runner, uint32_t max_batch)
    : runner_(std::move(runner)), max_batch_(max_batch) {
  require(max_batch > 0, ErrorCode::invalid_argument, "max_batch is 0: it must be at least 1");
  thread_ = std::thread([this] { run(); });
}

Scheduler::~Scheduler() {
  {
    const std::lock_guard lock(mutex_);
    stop_.cancel();
    for (const auto& job : queue_) job->cancel.cancel();
    for (const auto& job : active_) job->cancel.cancel();
  }
  wake_.notify_one();
  thread_.join();
}

std::future<GenerateResult> Scheduler::submit(GenerateRequest request) {
  auto job = std::make_unique<Job>(std::move(request));
  auto future = job->promise.get_future();
  try {
    job->generation.emplace(job->request, runner_->tokenizer(), job->started);
  } catch (...) {
    job->promise.set_exception(std::current_exception());
    return future;
  }
  {
    const std::lock_guard lock(mutex_);
    if (stop_.cancelled()) job->cancel.cancel();
    queue_.push_back(std::move(job));
  }
  wake_.notify_one();
  return future;
}

void Scheduler::run() {
  while (admit()) {
    prefill();
    decode();
    retire();
  }
}

// Waits for work and takes it in. False when the scheduler goes away and nothing is left to settle.
bool Scheduler::admit() {
  std::vector<std::unique_ptr<Job>> cancelled;
  {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return !queue_.empty() || !active_.empty() || stop_.cancelled(); });
    if (queue_.empty() && active_.empty()) return false;
    // A request need not wait for its turn to be cancelled.
    for (auto it = queue_.begin(); it != queue_.end();) {
      if ((*it)->cancel.cancelled()) {
        cancelled.push_back(std::move(*it));
        it = queue_.erase(it);
      } else {
        ++it;
      }
    }
    while (!queue_.empty() && active_.size() < max_batch_) {
      active_.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
  }
  for (const auto& job : cancelled) {
    job->end_cancelled();
    job->settle();
  }
  return true;
}

void Scheduler::prefill() {
  const auto waiting = std::find_if(active_.begin(), active_.end(), [](const auto& job) {
    return !job->done() && job->prefilled < job->request.prompt.size();
  });
  if (waiting == active_.end()) return;
  Job& job = **waiting;
  job.guard([&] {
    if (job.cancel.cancelled()) return job.generation->end(StopReason::cancelled);
    if (job.sequence == nullptr) {
      job.sequence = runner_->start();
      job.generation->check_prompt_fits(*job.sequence);
    }
    const std::span<const TokenId> prompt(job.request.prompt);
    const size_t count =
        std::min<size_t>(std::max<uint32_t>(1, job.sequence->chunk()), prompt.size() - job.prefilled);
    AppendOptions options;
    options.cancel = &job.cancel;
    const auto logits = job.sequence->append(prompt.subspan(job.prefilled, count), options);
    job.prefilled += count;
    if (job.request.on_prefill) job.request.on_prefill(job.prefilled, prompt.size());
    if (job.prefilled == prompt.size()) job.sample(logits);
  });
}

void Scheduler::decode() {
  std::vector<Job*> jobs;
  std::vector<Sequence*> sequences;
  std::vector<TokenId> ids;
  for (const auto& job : active_) {
    if (job->done() || !job->token) continue;
    if (job->cancel.cancelled()) {
      job->end_cancelled();
      continue;
    }
    jobs.push_back(job.get());
    sequences.push_back(job->sequence.get());
    ids.push_back(*job->token);
  }
  if (jobs.empty()) return;
  try {
    runner_->append_batch(sequences, ids, &stop_);
  } catch (...) {
    for (Job* job : jobs) decode_alone(*job);
    return;
  }
  for (Job* job : jobs) job->guard([&] { job->sample(job->sequence->logits()); });
}

void Scheduler::decode_alone(Job& job) {
  job.guard([&] {
    Sequence* const sequence = job.sequence.get();
    runner_->append_batch({&sequence, 1}, {&*job.token, 1}, &job.cancel);
    job.sample(sequence->logits());
  });
}

void Scheduler::retire() {
  std::vector<std::unique_ptr<Job>> ended;
  {
    const std::lock_guard lock(mutex_);
    const auto first =
        std::stable_partition(active_.begin(), active_.end(), [](const auto& job) { return !job->done(); });
    std::move(first, active_.end(), std::back_inserter(ended));
    active_.erase(first, active_.end());
  }
  for (const auto& job : ended) job->settle();
}

}  // namespace mneme
