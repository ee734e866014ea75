// Continuous batching against a fake model: the results must be those of generate(), one request at a time.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "engine/fake_sequence.h"
#include "engine/generation.h"

#ifdef __SANITIZE_THREAD__
// An exception passes from the engine's thread to the waiting one through std::exception_ptr, whose reference
// count lies in libstdc++.so, which is not instrumented: ThreadSanitizer cannot see that the last owner frees
// it.
extern "C" const char* __tsan_default_suppressions() {
  return "race:std::__exception_ptr::exception_ptr::_M_release\n";
}
#endif

namespace mneme::scheduler_test {
namespace {

using namespace testing_fakes;
using namespace std::chrono_literals;

std::unique_ptr<Scheduler> make_scheduler(FakeModel& model, uint32_t max_batch) {
  return std::make_unique<Scheduler>(std::make_unique<FakeRunner>(model), max_batch);
}

GenerateRequest random_request(Pcg64& random) {
  GenerateRequest request;
  request.prompt.resize(1 + random.below(60));
  for (auto& id : request.prompt) id = static_cast<TokenId>(7 + random.below(26));
  request.max_tokens = static_cast<uint32_t>(random.below(40));
  request.sampling.seed = random.next();
  request.sampling.temperature = random.below(3) == 0 ? 0.0 : 1.2;
  request.sampling.repetition_penalty = 1.1;
  request.ignore_eos = random.below(2) == 0;
  if (random.below(2) == 0) request.stop = {"q", "z", "ST"};
  return request;
}

GenerateResult alone(FakeModel& model, const GenerateRequest& request) {
  FakeSequence sequence(model);
  return generate(sequence, &model.tokenizer, request);
}

ErrorCode code_of(std::future<GenerateResult>& future) {
  try {
    future.get();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::io;
}

TEST(Scheduler, HundredRandomRequestsEqualOneByOne) {
  FakeModel model;
  model.context = 80;  // some requests fill it
  Pcg64 random(3);
  std::vector<GenerateRequest> requests(100);
  for (auto& request : requests) request = random_request(random);
  std::vector<std::future<GenerateResult>> futures;
  const auto scheduler = make_scheduler(model, 8);
  for (const auto& request : requests) futures.push_back(scheduler->submit(request));
  std::array<int, 5> reasons{};
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto got = futures[i].get();
    FakeModel fresh;
    fresh.context = model.context;
    const auto expected = alone(fresh, requests[i]);
    EXPECT_EQ(got.tokens, expected.tokens) << i;
    EXPECT_EQ(got.text, expected.text) << i;
    EXPECT_EQ(got.stop, expected.stop) << i;
    EXPECT_EQ(got.prompt_tokens, expected.prompt_tokens);
    ++reasons.at(static_cast<size_t>(got.stop));
  }
  // The mix covers every way to stop except cancelling.
  for (const auto reason : {StopReason::length, StopReason::end, StopReason::stop, StopReason::context})
    EXPECT_GT(reasons.at(static_cast<size_t>(reason)), 0) << to_string(reason);
  const std::lock_guard lock(model.mutex);
  EXPECT_EQ(*std::max_element(model.batches.begin(), model.batches.end()), 8u);
}

TEST(Scheduler, SubmittingFromManyThreads) {
  FakeModel model;
  const auto scheduler = make_scheduler(model, 4);
  std::vector<std::thread> threads;
  std::atomic<int> equal{0};
  for (uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      Pcg64 random(100 + t);
      FakeModel fresh;
      for (int i = 0; i < 10; ++i) {
        const auto request = random_request(random);
        auto future = scheduler->submit(request);
        if (future.get().tokens == alone(fresh, request).tokens) ++equal;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(equal, 40);
}

TEST(Scheduler, CancellingOneOfTwoLeavesTheOther) {
  FakeModel model;
  model.context = 100000;
  CancelToken cancel;
  std::atomic<int> steps{0};
  model.on_batch = [&](size_t batch) {
    if (batch == 2 && ++steps == 5) cancel.cancel();
  };
  GenerateRequest doomed, other;
  doomed.prompt = {7, 8};
  doomed.max_tokens = 1000000;
  doomed.ignore_eos = true;
  doomed.cancel = &cancel;
  std::string seen;
  doomed.on_text = [&](std::string_view text) {
    seen += text;
    return true;
  };
  other.prompt = {9, 10, 11};
  other.max_tokens = 50;
  other.ignore_eos = true;
  const auto scheduler = make_scheduler(model, 2);
  auto first = scheduler->submit(doomed);
  auto second = scheduler->submit(other);
  const auto cancelled = first.get();
  EXPECT_EQ(cancelled.stop, StopReason::cancelled);
  EXPECT_GE(cancelled.tokens.size(), 5u);
  EXPECT_EQ(cancelled.text, seen);
  const auto result = second.get();
  FakeModel fresh;
  EXPECT_EQ(result.tokens, alone(fresh, other).tokens);
  EXPECT_EQ(result.stop, StopReason::length);
}

TEST(Scheduler, CancellingDuringAPromptEndsIt) {
  FakeModel model;
  CancelToken cancel;
  model.on_append = [&](size_t position) {
    if (position == 20) cancel.cancel();
  };
  GenerateRequest request;
  request.prompt.assign(60, 9);
  request.cancel = &cancel;
  const auto scheduler = make_scheduler(model, 2);
  const auto result = scheduler->submit(request).get();
  EXPECT_EQ(result.stop, StopReason::cancelled);
  EXPECT_TRUE(result.tokens.empty());
}

TEST(Scheduler, QueuedRequestsCanBeCancelledBeforeTheirTurn) {
  FakeModel model;
  model.context = 1000000;
  CancelToken running, queued;
  GenerateRequest endless, waiting;
  endless.prompt = {7};
  endless.max_tokens = 1u << 30;
  endless.ignore_eos = true;
  endless.cancel = &running;
  waiting.prompt = {8};
  waiting.cancel = &queued;
  const auto scheduler = make_scheduler(model, 1);
  auto first = scheduler->submit(endless);
  auto second = scheduler->submit(waiting);
  queued.cancel();
  EXPECT_EQ(second.get().stop, StopReason::cancelled);
  EXPECT_EQ(first.wait_for(0ms), std::future_status::timeout);
  running.cancel();
  EXPECT_EQ(first.get().stop, StopReason::cancelled);
}

TEST(Scheduler, AnErrorOfOneRequestIsItsOwn) {
  FakeModel model;
  model.poison = true;
  model.context = 120;
  GenerateRequest good;
  good.prompt = {7, 9, 11};
  good.max_tokens = 80;
  good.ignore_eos = true;
  good.sampling.logit_bias = {{kPoison, -1000.0F}};

  GenerateRequest bad_prompt = good;  // fails while its prompt is processed
  bad_prompt.prompt = {7, kPoison};
  GenerateRequest bad_step = good;  // fails in a batched step that it shares with others
  bad_step.prompt = {8};
  model.scripts = {{{8}, {12, 13, kPoison, 14}}};
  bad_step.sampling.logit_bias.clear();
  GenerateRequest bad_options = good;
  bad_options.sampling.top_p = 7;
  GenerateRequest bad_bias = good;  // found only when sampling
  bad_bias.sampling.logit_bias = {{1000000, 1.0F}};
  GenerateRequest too_long = good;
  too_long.prompt.assign(121, 9);
  GenerateRequest empty = good;
  empty.prompt.clear();
  GenerateRequest throwing = good;
  throwing.on_text = [](std::string_view) -> bool { throw std::runtime_error("callback"); };

  const auto scheduler = make_scheduler(model, 16);
  std::vector<std::future<GenerateResult>> goods;
  const auto submit_good = [&] { goods.push_back(scheduler->submit(good)); };
  submit_good();
  auto f1 = scheduler->submit(bad_prompt);
  auto f2 = scheduler->submit(bad_step);
  submit_good();
  auto f3 = scheduler->submit(bad_options);
  auto f4 = scheduler->submit(bad_bias);
  auto f5 = scheduler->submit(too_long);
  auto f6 = scheduler->submit(empty);
  auto f7 = scheduler->submit(throwing);
  submit_good();
  EXPECT_EQ(code_of(f1), ErrorCode::internal);
  EXPECT_EQ(code_of(f2), ErrorCode::internal);
  EXPECT_EQ(code_of(f3), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(f4), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of(f5), ErrorCode::limit);
  EXPECT_EQ(code_of(f6), ErrorCode::invalid_argument);
  EXPECT_THROW(f7.get(), std::runtime_error);
  FakeModel fresh;
  fresh.context = model.context;
  const auto expected = alone(fresh, good);
  for (auto& future : goods) {
    const auto result = future.get();
    EXPECT_EQ(result.tokens, expected.tokens);
    EXPECT_EQ(result.stop, StopReason::length);
  }
}

TEST(Scheduler, ALongPromptDoesNotStopTheOthers) {
  FakeModel model;
  model.context = 2000;
  model.chunk = 4;
  GenerateRequest talker, reader;
  talker.prompt = {7};
  talker.max_tokens = 60;
  talker.ignore_eos = true;
  std::atomic<uint64_t> read_at_end{0}, read{0};
  reader.prompt.assign(1000, 9);
  reader.max_tokens = 1;
  reader.on_prefill = [&](uint64_t done, uint64_t) { read = done; };
  std::atomic<int> said{0};
  // The reader is submitted by the talker's first token, from the engine's own thread.
  std::unique_ptr<Scheduler> scheduler;
  std::promise<std::future<GenerateResult>> handed;
  talker.on_text = [&](std::string_view) {
    if (++said == 1) handed.set_value(scheduler->submit(reader));
    read_at_end = read.load();
    return true;
  };
  scheduler = make_scheduler(model, 2);
  auto first = scheduler->submit(talker);
  auto second = handed.get_future().get();
  EXPECT_EQ(first.get().tokens.size(), 60u);
  EXPECT_GT(read_at_end.load(), 0u);       // chunks went in between
  EXPECT_LE(read_at_end.load(), 60u * 4);  // at most one for each token
  EXPECT_EQ(second.get().tokens.size(), 1u);
  EXPECT_EQ(read.load(), 1000u);
}

TEST(Scheduler, DestructorCancelsRunningAndQueuedRequests) {
  FakeModel model;
  model.context = 1000000000;
  std::vector<std::future<GenerateResult>> futures;
  std::atomic<bool> talking{false};
  {
    const auto scheduler = make_scheduler(model, 2);
    GenerateRequest endless;
    endless.prompt = {7};
    endless.max_tokens = ~0u;
    endless.ignore_eos = true;
    endless.on_text = [&](std::string_view) {
      talking = true;
      return true;
    };
    for (int i = 0; i < 5; ++i) futures.push_back(scheduler->submit(endless));
    while (!talking) std::this_thread::sleep_for(1ms);
  }
  for (auto& future : futures) {
    ASSERT_EQ(future.wait_for(0ms), std::future_status::ready);
    EXPECT_EQ(future.get().stop, StopReason::cancelled);
  }
}

TEST(Scheduler, IdleSchedulersEndAndZeroBatchIsRefused) {
  FakeModel model;
  make_scheduler(model, 1).reset();
  EXPECT_THROW(make_scheduler(model, 0), Error);
}

}  // namespace
}  // namespace mneme::scheduler_test
