// Models with memories: their answers equal an independent implementation, however their tokens are cut and
// wherever their rows are, and packs that do not belong to them are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <thread>

#include "engine/memory_models.h"
#include "mneme/engine.h"
#include "mneme/error.h"
#include "mneme/session.h"
#include "scratch.h"

namespace mneme::memory_model_test {
namespace {

using testing::HasSubstr;

SessionOptions exact(uint32_t chunk = 512) {
  SessionOptions options;
  options.kv = KvType::f32;
  options.chunk = chunk;
  options.max_context = 4096;
  return options;
}

std::vector<float> all_logits(const std::shared_ptr<const Model>& model, const std::vector<TokenId>& ids,
                              uint32_t chunk = 512) {
  Session session(model, exact(chunk));
  AppendOptions options;
  options.all_logits = true;
  const auto span = session.append(ids, options);
  return {span.begin(), span.end()};
}

std::vector<TokenId> random_ids(const Model& model, size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<TokenId> ids(n);
  for (TokenId& id : ids) id = static_cast<TokenId>(rng() % model.config().vocab);
  return ids;
}

/// Largest difference in units of the largest reference value.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0, scale = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(double{a[i]} - b[i]));
    scale = std::max(scale, std::abs(double{b[i]}));
  }
  return largest / scale;
}

std::string refusal(const std::function<void()>& action, ErrorCode code) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return {};
}

TEST(MemoryModel, LogitsEqualTheFloat64Reference) {
  const MemoryGolden golden = load_memory_golden();
  const auto model = load_with_memory(golden_pack());
  EXPECT_LE(difference(all_logits(model, golden.ids), golden.values.at("logits")), 1e-5);
  EXPECT_LE(difference(all_logits(model, golden.ids, 1), golden.values.at("logits")), 1e-5);
  // the module is not a detail: without it the answer is another
  EXPECT_GT(difference(all_logits(load_tiny("llama"), golden.ids), golden.values.at("logits")), 1e-2);
}

// The end-to-end tests use a pack that was written once. To make it again after a change of the golden model:
// MNEME_WRITE_GOLDEN_PACK=tests/data/engram/golden.engram engine_tests --gtest_filter=*ThePackOfTheTestData*
TEST(MemoryModel, ThePackOfTheTestDataIsTheGoldenOne) {
  const MemoryGolden golden = load_memory_golden();
  if (const char* path = std::getenv("MNEME_WRITE_GOLDEN_PACK"))
    write_pack(path, memory_pack(golden, load_tiny("llama")->tokenizer()));
  const auto model = load_with_memory(fs::path(MNEME_TEST_DATA) / "engram/golden.engram");
  EXPECT_LE(difference(all_logits(model, golden.ids), golden.values.at("logits")), 1e-5);
}

TEST(MemoryModel, ChunksOfOneSevenAndAllAgree) {
  const auto model = load_with_memory(golden_pack());
  const auto ids = random_ids(*model, 150, 3);
  const auto whole = all_logits(model, ids);
  for (const uint32_t chunk : {1u, 7u, 64u})
    EXPECT_LE(difference(all_logits(model, ids, chunk), whole), 1e-5) << chunk;
}

TEST(MemoryModel, EveryPlacementGivesTheSameBits) {
  const auto ids = load_memory_golden().ids;
  std::vector<float> first;
  for (const Placement placement : {Placement::ram, Placement::mmap, Placement::direct, Placement::cache}) {
    LoadOptions options;
    options.memory.push_back({golden_pack(), placement});
    options.memory_budget = 8 << 20;
    std::shared_ptr<const Model> model;
    try {
      model = load_tiny("llama", options);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unsupported) throw;  // a filesystem without direct reads
      continue;
    }
    EXPECT_EQ(model->memories().at(0).placement, to_string(placement));
    const auto logits = all_logits(model, ids, 16);
    if (first.empty()) first = logits;
    EXPECT_EQ(logits, first) << to_string(placement);
  }
}

// A module whose value projection is zero adds nothing, whatever its other weights are.
TEST(MemoryModel, RetrofitWithAZeroValueProjectionChangesNoBit) {
  MemoryGolden golden = load_memory_golden();
  for (auto& [name, values] : golden.values)
    if (name.find("engram_v.") != std::string::npos) std::fill(values.begin(), values.end(), 0.0f);
  const ScratchFolder folder;
  for (const char* name : {"llama", "llama_q8_0.gguf"}) {
    const auto plain = load_tiny(name);
    write_pack(folder / "zero.engram", memory_pack(golden, plain->tokenizer()));
    const auto with_memory = load_with_memory(folder / "zero.engram", name);
    ASSERT_TRUE(with_memory->config().layers[1].memory);
    const auto ids = random_ids(*plain, 90, 5);
    for (const uint32_t chunk : {1u, 7u, 512u})
      EXPECT_EQ(all_logits(with_memory, ids, chunk), all_logits(plain, ids, chunk)) << name << " " << chunk;
  }
}

TEST(MemoryModel, BatchesThroughTheEngineGiveTheTextOfOneByOne) {
  const auto model = load_with_memory(golden_pack());
  const auto answers = [&](uint32_t max_batch) {
    EngineOptions options;
    options.max_batch = max_batch;
    options.session = exact();
    Engine engine(model, options);
    std::vector<std::future<GenerateResult>> futures;
    for (uint32_t i = 0; i < 6; ++i) {
      GenerateRequest request;
      request.prompt = random_ids(*model, 3 + 11 * i, i);
      request.max_tokens = 24;
      request.sampling.temperature = 0;
      request.ignore_eos = true;
      futures.push_back(engine.submit(std::move(request)));
    }
    std::vector<std::vector<TokenId>> out;
    out.reserve(futures.size());
    for (auto& future : futures) out.push_back(future.get().tokens);
    return out;
  };
  const auto alone = answers(1);
  EXPECT_EQ(answers(4), alone);
  EXPECT_GT(alone[3].size(), 1u);
}

// Two sessions decode in one pass: each must look back on its own tokens.
TEST(MemoryModel, ABatchGivesTheBitsOfOneByOne) {
  const auto model = load_with_memory(golden_pack());
  std::vector<Session> alone, together;
  for (uint32_t i = 0; i < 4; ++i)
    for (auto* list : {&alone, &together}) {
      list->emplace_back(model, exact());
      list->back().append(random_ids(*model, 1 + 9 * i, i));
    }
  std::vector<Session*> pointers;
  pointers.reserve(together.size());
  for (Session& session : together) pointers.push_back(&session);
  for (uint32_t step = 0; step < 20; ++step) {
    const auto ids = random_ids(*model, 4, 50 + step);
    Session::append_batch(pointers, ids);
    for (size_t i = 0; i < 4; ++i) {
      const auto expected = alone[i].append({&ids[i], 1});
      ASSERT_TRUE(std::ranges::equal(expected, together[i].logits())) << "step " << step << " session " << i;
    }
  }
}

TEST(MemoryModel, RollbackReachesAsFarAsTheConvolutionKeeps) {
  const auto model = load_with_memory(golden_pack());
  Session session(model, exact());
  session.append(random_ids(*model, 100, 1));
  EXPECT_THAT(refusal([&] { session.rollback(17); }, ErrorCode::limit), HasSubstr("max_rollback 16"));
  EXPECT_NO_THROW(session.rollback(16));
  EXPECT_GT(session.state_bytes(), Session(load_tiny("llama"), exact()).state_bytes());
}

TEST(MemoryModel, ACancelledPassLeavesTheConvolutionAsItWas) {
  const auto model = load_with_memory(golden_pack());
  Session session(model, exact(16)), twin(model, exact(16));
  const auto prompt = random_ids(*model, 40, 1), rest = random_ids(*model, 200, 2),
             next = random_ids(*model, 3, 3);
  session.append(prompt);
  twin.append(prompt);
  CancelToken cancel;
  AppendOptions options;
  options.cancel = &cancel;
  options.progress = [&](uint64_t done, uint64_t) {
    if (done >= 96) cancel.cancel();
  };
  EXPECT_THAT(refusal([&] { session.append(rest, options); }, ErrorCode::cancelled), HasSubstr("96"));
  EXPECT_TRUE(std::ranges::equal(session.append(next), twin.append(next)));
}

TEST(MemoryModel, AFileThatShrinksUnderLoadIsAnErrorAndTheSessionStaysUsable) {
  const ScratchFolder folder;
  const fs::path path = folder / "shrinks.engram";
  fs::copy_file(golden_pack(), path);
  LoadOptions options;
  options.memory.push_back({path, Placement::mmap});
  const auto model = load_tiny("llama", options);
  Session session(model, exact());
  const auto ids = random_ids(*model, 30, 1);
  session.append(ids);
  const auto size = fs::file_size(path);
  fs::resize_file(path, 4096);
  refusal([&] { session.append(ids); }, ErrorCode::io);
  EXPECT_EQ(session.tokens(), ids);
  fs::resize_file(path, size);
  fs::copy_file(golden_pack(), path, fs::copy_options::overwrite_existing);
  Session twin(load_with_memory(golden_pack()), exact());
  twin.append(ids);
  EXPECT_TRUE(std::ranges::equal(session.append(ids), twin.append(ids)));
}

TEST(MemoryModel, SaysWhatItReads) {
  const auto model = load_with_memory(golden_pack());
  const auto memories = model->memories();
  ASSERT_EQ(memories.size(), 1u);
  EXPECT_EQ(memories[0].layers, (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(memories[0].rows, 680u);
  EXPECT_EQ(memories[0].path, golden_pack().string());
  EXPECT_THAT(model->describe_plan(false), HasSubstr("memory k,v"));
  EXPECT_THAT(model->describe_plan(true), HasSubstr("memory conv"));
  EXPECT_NE(model->hash(), load_tiny("llama")->hash());
  Session session(model, exact());
  session.append(random_ids(*model, 10, 1));
  EXPECT_EQ(model->memories()[0].statistics.rows, 10u * 4 * 2);
}

class RefusedPack : public testing::Test {
 protected:
  std::string load(const PackToWrite& pack, ErrorCode code, const std::string& model = "llama") {
    const fs::path path = folder / "bad.engram";
    write_pack(path, pack);
    std::string message = refusal([&] { load_with_memory(path, model); }, code);
    EXPECT_THAT(message, HasSubstr("bad.engram"));
    return message;
  }
  ScratchFolder folder;
  MemoryGolden golden = load_memory_golden();
  std::shared_ptr<const Model> plain = load_tiny("llama");
};

TEST_F(RefusedPack, OfAnotherModel) {
  PackToWrite pack = memory_pack(golden, plain->tokenizer());
  pack.description.model_hash = load_tiny("llama3")->hash();
  EXPECT_THAT(load(pack, ErrorCode::mismatch), HasSubstr("made for another model"));
}

TEST_F(RefusedPack, OfAnotherTokenizer) {
  PackToWrite pack = memory_pack(golden, plain->tokenizer());
  std::vector<std::byte> map = pack.token_map;
  map[25] ^= std::byte{1};  // of the fingerprint
  map.erase(map.end() - 32, map.end());
  const std::string sum = sha256_hex(map);
  for (size_t i = 0; i < 32; ++i)
    map.push_back(static_cast<std::byte>(std::stoi(sum.substr(2 * i, 2), nullptr, 16)));
  pack.token_map = map;
  EXPECT_THAT(load(pack, ErrorCode::mismatch), HasSubstr("another vocabulary"));
}

TEST_F(RefusedPack, WithModulesOfAnotherWidth) {
  PackToWrite pack = memory_pack(golden, plain->tokenizer());
  EXPECT_THAT(load(pack, ErrorCode::mismatch, "qwen2"), HasSubstr("this model asks for [64, 64]"));
}

TEST_F(RefusedPack, WithoutModulesForAModelWithoutTables) {
  EXPECT_THAT(load(memory_pack(golden, plain->tokenizer(), false), ErrorCode::mismatch),
              HasSubstr("no modules"));
}

TEST_F(RefusedPack, ThatIsAttachedTwice) {
  LoadOptions options;
  options.memory.push_back({golden_pack(), Placement::ram});
  EXPECT_THAT(refusal([&] { load_with_memory(golden_pack(), "llama", options); }, ErrorCode::mismatch),
              HasSubstr("has a memory already"));
}

}  // namespace
}  // namespace mneme::memory_model_test
