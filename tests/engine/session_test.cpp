// A session's promises, on models with full attention and with windows: every way of reaching a position
// gives the same bits as the straight run cut into the same chunks.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "core/half.h"
#include "engine/memory_models.h"
#include "engine/session_impl.h"
#include "engine/tiny_models.h"
#include "mneme/error.h"
#include "mneme/session.h"
#include "scratch.h"

namespace mneme::session_test {
namespace {

struct Case {
  const char* model;
  KvType kv;
};

std::vector<float> copy(std::span<const float> x) {
  return {x.begin(), x.end()};
}

ErrorCode code_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::internal;
}

class SessionOf : public testing::TestWithParam<Case> {
 protected:
  /// "memory" is the tiny Llama with two Engram modules, one of them with a convolution.
  static std::shared_ptr<const Model> model(const LoadOptions& load = {}) {
    const std::string name = GetParam().model;
    return name == "memory" ? load_with_memory(golden_pack(), "llama", load) : load_tiny(name, load);
  }
  static SessionOptions options() {
    SessionOptions o;
    o.kv = GetParam().kv;
    o.max_context = 4096;
    return o;
  }
  std::vector<TokenId> random_ids(const Model& m, size_t n, uint32_t seed) {
    std::mt19937 rng(seed);
    std::vector<TokenId> ids(n);
    for (auto& id : ids) id = static_cast<TokenId>(rng() % m.config().vocab);
    return ids;
  }
};

// The straight run: the same chunks, from the start.
std::vector<float> straight(const std::shared_ptr<const Model>& m, const SessionOptions& o,
                            const std::vector<std::vector<TokenId>>& chunks) {
  Session session(m, o);
  for (const auto& chunk : chunks) session.append(chunk);
  return copy(session.logits());
}

TEST_P(SessionOf, RandomSnapshotRestoreForkRollbackEqualTheStraightRun) {
  const auto m = model();
  for (uint32_t seed = 0; seed < 6; ++seed) {
    std::mt19937 rng(seed);
    Session session(m, options());
    std::vector<std::vector<TokenId>> chunks;  // what the session holds now
    // How many tokens a windowed model can still undo: rollbacks use it up, appends bring it back.
    size_t reach = 0;
    struct Saved {
      Snapshot snapshot;
      std::vector<std::vector<TokenId>> chunks;
      size_t reach;
    };
    std::vector<Saved> saved;
    for (int action = 0; action < 40; ++action) {
      switch (rng() % 6) {
        case 0:
          saved.push_back({session.snapshot(), chunks, reach});
          break;
        case 1:
          if (!saved.empty()) {
            const Saved& pick = saved[rng() % saved.size()];
            session.restore(pick.snapshot);
            chunks = pick.chunks;
            reach = pick.reach;
          }
          break;
        case 2: {
          Session other = session.fork();
          const auto ids = random_ids(*m, 3, rng());
          session.append(ids);  // what the parent does next must not reach the child
          session = std::move(other);
          break;
        }
        case 3:
          if (!chunks.empty() && chunks.back().size() <= reach) {
            session.rollback(chunks.back().size());
            reach -= chunks.back().size();
            chunks.pop_back();
          }
          break;
        default: {
          const auto ids = random_ids(*m, 1 + rng() % (action % 9 == 0 ? 300 : 12), rng());
          session.append(ids);
          chunks.push_back(ids);
          reach = std::min<size_t>(16, reach + ids.size());
        }
      }
    }
    const auto last = random_ids(*m, 5, 99);
    const auto got = copy(session.append(last));
    chunks.push_back(last);
    ASSERT_EQ(got, straight(m, options(), chunks)) << "seed " << seed;
    std::vector<TokenId> held;
    for (const auto& chunk : chunks) held.insert(held.end(), chunk.begin(), chunk.end());
    ASSERT_EQ(session.tokens(), held);
  }
}

TEST_P(SessionOf, SnapshotFileRestoresTheSameBits) {
  const auto m = model();
  const ScratchFolder folder;
  const auto path = folder / "state.snap";
  Session session(m, options());
  session.append(random_ids(*m, 290, 1));
  session.snapshot().save(path);
  const auto next = random_ids(*m, 4, 2);
  const auto expected = copy(session.append(next));
  Session other(m, options());
  other.restore(Snapshot::load(path));
  EXPECT_EQ(copy(other.append(next)), expected);
  EXPECT_EQ(other.tokens(), session.tokens());
}

TEST_P(SessionOf, ChunkSizeChangesNothingBeyondFloatOrder) {
  const auto m = model();
  const auto ids = random_ids(*m, 150, 3);
  const auto logits_with = [&](uint32_t chunk) {
    SessionOptions o = options();
    o.chunk = chunk;
    Session session(m, o);
    return copy(session.append(ids));
  };
  const auto whole = logits_with(512);
  for (const uint32_t chunk : {1u, 7u, 64u}) {
    const auto got = logits_with(chunk);
    float max = 0;
    for (size_t i = 0; i < got.size(); ++i) max = std::max(max, std::abs(got[i] - whole[i]));
    // Softmax sums differ in order; with an int8 or f16 cache a last-bit change can move a rounding.
    EXPECT_LE(max, GetParam().kv == KvType::f32 ? 2e-4f : 3e-2f) << "chunk " << chunk;
  }
}

TEST_P(SessionOf, BatchGivesTheBitsOfOneByOne) {
  const auto m = model();
  std::vector<Session> alone, together;
  for (uint32_t i = 0; i < 5; ++i) {
    const auto prompt = random_ids(*m, 3 + 60 * i, i);
    alone.emplace_back(m, options());
    together.emplace_back(m, options());
    alone.back().append(prompt);
    together.back().append(prompt);
  }
  std::vector<Session*> pointers;
  pointers.reserve(together.size());
  for (auto& session : together) pointers.push_back(&session);
  for (uint32_t step = 0; step < 6; ++step) {
    const auto ids = random_ids(*m, 5, 70 + step);
    Session::append_batch(pointers, ids);
    for (size_t i = 0; i < 5; ++i) {
      alone[i].append({&ids[i], 1});
      ASSERT_EQ(copy(alone[i].logits()), copy(together[i].logits())) << "step " << step << " session " << i;
    }
  }
}

TEST_P(SessionOf, ThreadCountChangesNothing) {
  const auto ids = random_ids(*model(), 80, 5);
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    LoadOptions load;
    load.threads = threads;
    Session session(model(load), options());
    session.append(ids);
    const TokenId next = 7;
    const auto logits = copy(session.append({&next, 1}));
    if (first.empty()) first = logits;
    EXPECT_EQ(logits, first) << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SessionOf,
                         testing::Values(Case{"llama", KvType::f32}, Case{"llama_q8_0.gguf", KvType::f16},
                                         Case{"mistral", KvType::f16}, Case{"gemma3_pattern", KvType::f32},
                                         Case{"qwen3", KvType::int8}, Case{"gemma3_pattern", KvType::int8},
                                         Case{"memory", KvType::f32}, Case{"memory", KvType::int8},
                                         Case{"mixers/gla_low_rank", KvType::f32},
                                         Case{"mixers/delta", KvType::f32},
                                         Case{"mixers/hybrid", KvType::f32},
                                         Case{"mixers/hybrid", KvType::int8}),
                         [](const auto& c) {
                           std::string name = std::string(c.param.model) + "_" +
                                              (c.param.kv == KvType::f32   ? "f32"
                                               : c.param.kv == KvType::f16 ? "f16"
                                                                           : "int8");
                           for (auto& ch : name) ch = ch == '.' || ch == '/' ? '_' : ch;
                           return name;
                         });

TEST(Session, CancelledAppendLeavesTheStateUnchanged) {
  for (const char* name : {"llama", "mistral", "mixers/delta", "mixers/hybrid"}) {
    const auto m = load_tiny(name);
    SessionOptions o;
    o.chunk = 16;
    o.max_context = 4096;
    Session session(m, o), twin(m, o);
    const std::vector<TokenId> prompt(40, 3), rest(200, 5), next{1, 2};
    session.append(prompt);
    twin.append(prompt);
    CancelToken cancel;
    AppendOptions options;
    options.cancel = &cancel;
    options.progress = [&](uint64_t done, uint64_t) {
      if (done >= 96) cancel.cancel();
    };
    EXPECT_EQ(code_of([&] { session.append(rest, options); }), ErrorCode::cancelled) << name;
    EXPECT_EQ(session.tokens(), prompt);
    EXPECT_EQ(copy(session.append(next)), copy(twin.append(next))) << name;
  }
}

// A pass that stopped before it wrote anything has still reserved a block.
TEST(Session, SnapshotAfterACancelledAppendCanBeRestored) {
  for (const char* name : {"llama", "mistral"}) {
    const auto m = load_tiny(name);
    SessionOptions options;
    options.max_context = 4096;
    Session session(m, options), other(m, options);
    const std::vector<TokenId> page(kPagePositions, 4), next{5, 6};
    session.append(page);
    CancelToken cancel;
    cancel.cancel();
    AppendOptions append;
    append.cancel = &cancel;
    EXPECT_EQ(code_of([&] { session.append(next, append); }), ErrorCode::cancelled);
    EXPECT_NO_THROW(other.restore(session.snapshot())) << name;
    EXPECT_EQ(copy(other.append(next)), copy(session.append(next)));
  }
}

TEST(Session, NotesAndTheBeginningOfAFile) {
  const auto m = load_tiny("llama");
  Session session(m);
  const std::vector<TokenId> ids{4, 5, 6};
  session.append(ids);
  const ScratchFolder folder;
  const auto path = folder / "state.snap";
  session.snapshot().with_note("a \"note\" – of ours").save(path);
  const SnapshotInfo info = Snapshot::peek(path);
  EXPECT_EQ(info.model_hash, m->hash());
  EXPECT_EQ(info.tokens, ids);
  EXPECT_EQ(info.position, 3u);
  EXPECT_EQ(info.low_water, 0u);
  EXPECT_EQ(info.note, "a \"note\" – of ours");
  EXPECT_EQ(info.bytes, std::filesystem::file_size(path));
  EXPECT_EQ(Snapshot::load(path).note(), info.note);
  EXPECT_EQ(session.snapshot().note(), "");
  const std::string file = read_text_file(path);
  const size_t header = load_le<uint32_t>(std::as_bytes(std::span(file)).data() + 12);
  for (size_t cut = 0; cut < 16 + header + ids.size() * sizeof(TokenId); cut += 7) {
    std::ofstream(path, std::ios::binary) << file.substr(0, cut);
    EXPECT_EQ(code_of([&] { Snapshot::peek(path); }), ErrorCode::corrupt) << cut;
  }
}

TEST(Session, OtherLoadOptionsMakeAnotherModel) {
  LoadOptions quantized, rounded;
  quantized.type = "q8_0";
  rounded.activation = Activation::int8;
  const std::string plain = load_tiny("llama")->hash();
  EXPECT_EQ(load_tiny("llama")->hash(), plain);
  EXPECT_NE(load_tiny("llama", quantized)->hash(), plain);
  EXPECT_NE(load_tiny("llama", rounded)->hash(), plain);
  EXPECT_NE(load_tiny("llama", rounded)->hash(), load_tiny("llama", quantized)->hash());
}

TEST(Session, RefusesWhatItCannotDo) {
  const auto m = load_tiny("mistral");  // window 8
  SessionOptions o;
  o.max_context = 600;
  Session session(m, o);
  const std::vector<TokenId> many(500, 1), bad{static_cast<TokenId>(m->config().vocab)}, negative{-1};
  EXPECT_EQ(code_of([&] { session.append({}); }), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of([&] { session.append(bad); }), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of([&] { session.append(negative); }), ErrorCode::invalid_argument);
  session.append(many);
  EXPECT_EQ(code_of([&] { session.append(many); }), ErrorCode::limit);
  EXPECT_EQ(code_of([&] { session.rollback(17); }), ErrorCode::limit);
  EXPECT_NO_THROW(session.rollback(16));
  EXPECT_EQ(code_of([&] { session.rollback(1000); }), ErrorCode::invalid_argument);
  Session* twice[] = {&session, &session};
  const std::vector<TokenId> two{1, 2};
  EXPECT_EQ(code_of([&] { Session::append_batch(twice, two); }), ErrorCode::invalid_argument);
}

TEST(Session, WindowedModelKeepsBoundedState) {
  const auto m = load_tiny("mistral");
  SessionOptions o;
  o.max_context = 1 << 20;
  Session session(m, o);
  const std::vector<TokenId> ids(1000, 1);
  session.append(ids);
  const uint64_t early = session.state_bytes();
  for (int i = 0; i < 8; ++i) session.append(ids);
  EXPECT_LE(session.state_bytes(), early + early / 2);
}

TEST(Session, SnapshotOfAnotherModelOrOptionsIsRefused) {
  const auto llama = load_tiny("llama"), qwen = load_tiny("qwen2");
  Session session(llama), other(qwen);
  const std::vector<TokenId> ids{1, 2, 3};
  session.append(ids);
  EXPECT_EQ(code_of([&] { other.restore(session.snapshot()); }), ErrorCode::mismatch);
  SessionOptions f32;
  f32.kv = KvType::f32;
  Session wide(llama, f32);
  EXPECT_EQ(code_of([&] { wide.restore(session.snapshot()); }), ErrorCode::mismatch);
  // The same file loaded twice is the same model.
  Session again(load_tiny("llama"));
  EXPECT_NO_THROW(again.restore(session.snapshot()));
}

class DamagedSnapshot : public testing::TestWithParam<const char*> {};

TEST_P(DamagedSnapshot, IsRefused) {
  const auto m = load_tiny(GetParam());
  Session session(m);
  const std::vector<TokenId> ids(20, 4);
  session.append(ids);
  const ScratchFolder folder;
  session.snapshot().save(folder / "state.snap");
  const std::string good = read_text_file(folder / "state.snap");
  const auto parse = [](std::string_view text) { parse_snapshot(std::as_bytes(std::span(text)), "test"); };
  EXPECT_NO_THROW(parse(good));
  for (size_t cut = 0; cut < good.size(); cut += 1 + good.size() / 50)
    EXPECT_EQ(code_of([&] { parse(std::string_view(good).substr(0, cut)); }), ErrorCode::corrupt) << cut;
  for (size_t at = 12; at < good.size(); at += 1 + good.size() / 50) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    EXPECT_EQ(code_of([&] { parse(bad); }), ErrorCode::corrupt) << at;
  }
}

INSTANTIATE_TEST_SUITE_P(Session, DamagedSnapshot, testing::Values("llama", "mixers/hybrid"),
                         [](const auto& p) {
                           return std::string(p.param == std::string("llama") ? "llama" : "hybrid");
                         });

// What versions 1 and 2 wrote: no "recurrent" in the header, in version 1 no "convs" either, nothing behind
// the blocks.
class OldSnapshot : public testing::TestWithParam<uint32_t> {};

TEST_P(OldSnapshot, IsRead) {
  const auto m = load_tiny("mistral");
  Session session(m);
  const std::vector<TokenId> ids(20, 4), next{5, 6};
  session.append(ids);
  const ScratchFolder folder;
  const auto path = folder / "state.snap";
  session.snapshot().save(path);
  const std::string file = read_text_file(path);
  const auto number = [](uint32_t value) { return std::string(reinterpret_cast<const char*>(&value), 4); };
  const uint32_t header_bytes = load_le<uint32_t>(std::as_bytes(std::span(file)).data() + 12);
  Json header = Json::parse(file.substr(16, header_bytes));
  ASSERT_EQ(header.erase("recurrent"), 1u);
  if (GetParam() == 1) {
    ASSERT_EQ(header.erase("convs"), 1u);
  }
  const std::string text = header.dump();
  std::string old = file.substr(0, 8) + number(GetParam()) + number(static_cast<uint32_t>(text.size())) +
                    text + file.substr(16 + header_bytes, file.size() - 16 - 16 - header_bytes);
  old += sha256_hex(old);
  std::ofstream(path, std::ios::binary) << old;
  Session other(m);
  other.restore(Snapshot::load(path));
  EXPECT_EQ(copy(other.append(next)), copy(session.append(next)));
}

INSTANTIATE_TEST_SUITE_P(Session, OldSnapshot, testing::Values(1u, 2u));

// A snapshot of a model without recurrences does not fit one that has them, whatever its header says.
TEST(Session, SnapshotWithoutItsRecurrentStatesIsRefused) {
  const auto m = load_tiny("mixers/hybrid");
  Session session(m);
  const std::vector<TokenId> ids(40, 4);
  session.append(ids);
  const Snapshot good = session.snapshot();
  auto data = std::make_shared<Snapshot::Data>(good.data());
  EXPECT_NO_THROW(session.restore(Snapshot(data)));
  data->recurrent = {};
  EXPECT_EQ(code_of([&] { session.restore(Snapshot(data)); }), ErrorCode::corrupt);
  *data = good.data();
  data->recurrent.checkpoints.erase(data->recurrent.checkpoints.begin());
  EXPECT_EQ(code_of([&] { session.restore(Snapshot(data)); }), ErrorCode::corrupt);
}

TEST(Session, SessionsOfOneModelRunFromManyThreads) {
  const auto m = load_tiny("llama");
  const std::vector<TokenId> ids{5, 6, 7, 8};
  Session reference(m);
  const auto expected = copy(reference.append(ids));
  std::vector<std::thread> threads;
  std::atomic<int> equal{0};
  threads.reserve(4);
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 10; ++i) {
        Session session(m);
        if (copy(session.append(ids)) == expected) ++equal;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(equal.load(), 40);
}

}  // namespace
}  // namespace mneme::session_test
