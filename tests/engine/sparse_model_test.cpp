// A model of sparse layers beside its float64 reference (tools/mixer_reference.py), and its sessions: blocks
// of 64 keys, so that a few hundred tokens already choose.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>

#include "core/file.h"
#include "core/json.h"
#include "engine/synthetic.h"
#include "mneme/session.h"

namespace mneme::sparse_model_test {
namespace {

std::shared_ptr<const Model> sparse_model(int threads = 2, const std::string& name = "sparse") {
  LoadOptions load;
  load.threads = threads;
  load.activation = Activation::float_;
  return Model::load(std::filesystem::path(MNEME_TEST_DATA) / "mixers" / name, load);
}

std::vector<TokenId> random_ids(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<TokenId> ids(n);
  for (auto& id : ids) id = static_cast<TokenId>(rng() % 64);
  return ids;
}

SessionOptions options(KvType kv, uint32_t chunk = 512) {
  SessionOptions o;
  o.kv = kv;
  o.chunk = chunk;
  o.max_context = 4096;
  return o;
}

std::vector<float> copy(std::span<const float> x) {
  return {x.begin(), x.end()};
}

void expect_reference(const std::string& name) {
  const std::filesystem::path folder = std::filesystem::path(MNEME_TEST_DATA) / "mixers" / name;
  const Json json = parse_json(read_text_file(folder / "golden.json"), "golden.json");
  const auto ids = json.at("ids").get<std::vector<TokenId>>();
  const MappedFile file(folder / json.at("logits").get<std::string>(), LoadMode::read);
  const auto* golden = reinterpret_cast<const float*>(file.bytes().data());
  const auto model = sparse_model(2, name);
  ASSERT_EQ(file.size(), ids.size() * model->config().vocab * sizeof(float));
  for (const uint32_t chunk : {1u, 7u, 64u, 100u, 512u}) {
    Session session(model, options(KvType::f32, chunk));
    double most = 0;
    AppendOptions all;
    all.all_logits = true;
    const auto logits = copy(session.append(ids, all));
    for (size_t i = 0; i < logits.size(); ++i)
      most = std::max(most, std::abs(double{logits[i]} - double{golden[i]}));
    EXPECT_LE(most, 1e-4) << name << " in chunks of " << chunk;
  }
}

TEST(SparseModel, LogitsEqualTheReferenceForEveryChunkSize) {
  expect_reference("sparse");
}

// Heads that choose together, alone and with visible first positions.
TEST(SparseModel, SharedChoicesEqualTheReference) {
  expect_reference("sparse_shared");
}

// First positions that stay visible, more of them than a block, behind learned sink tokens.
TEST(SparseModel, SinksEqualTheReference) {
  expect_reference("sparse_sinks");
}

// Every way of reaching a position gives the bits of the straight run cut into the same chunks, across ends
// of blocks and after restores, which bring keys without their means.
TEST(SparseModel, RandomSnapshotRestoreForkRollbackEqualTheStraightRun) {
  for (const KvType kv : {KvType::f32, KvType::f16, KvType::int8}) {
    const auto model = sparse_model();
    for (uint32_t seed = 0; seed < 4; ++seed) {
      std::mt19937 rng(seed);
      Session session(model, options(kv));
      std::vector<std::vector<TokenId>> chunks;
      std::vector<std::pair<Snapshot, std::vector<std::vector<TokenId>>>> saved;
      const auto add = [&](size_t n) {
        chunks.push_back(random_ids(n, rng()));
        session.append(chunks.back());
      };
      add(200);
      for (int action = 0; action < 40; ++action) {
        switch (rng() % 6) {
          case 0:
            saved.emplace_back(session.snapshot(), chunks);
            break;
          case 1:
            if (saved.empty()) break;
            {
              const auto& [snapshot, then] = saved[rng() % saved.size()];
              session.restore(snapshot);
              chunks = then;
            }
            break;
          case 2: {
            Session other = session.fork();
            session.append(random_ids(1 + rng() % 90, rng()));
            session = std::move(other);
            break;
          }
          case 3:
            if (chunks.size() < 2) break;
            session.rollback(chunks.back().size());
            chunks.pop_back();
            break;
          default:
            add(1 + rng() % (action % 5 == 0 ? 200 : 4));
        }
      }
      add(3);
      Session straight(model, options(kv));
      std::vector<float> expected;
      for (const auto& chunk : chunks) expected = copy(straight.append(chunk));
      ASSERT_EQ(copy(session.logits()), expected) << "seed " << seed;
      EXPECT_EQ(session.tokens(), straight.tokens());
    }
  }
}

// Keys that no pass wrote have no means until the next pass, which has to compute them all.
TEST(SparseModel, SyntheticContextDecodesAsItDoesAfterARestore) {
  const auto model = sparse_model();
  Session session(model, options(KvType::int8)), other(model, options(KvType::int8));
  fill_synthetic(session, 1000, 1);
  const TokenId next = 3;
  other.restore(session.snapshot());
  const auto first = copy(session.append({&next, 1}));
  EXPECT_EQ(copy(other.append({&next, 1})), first);
  session.rollback(1);
  EXPECT_EQ(copy(session.append({&next, 1})), first);
}

TEST(SparseModel, ThreadCountAndBatchesChangeNothing) {
  const auto ids = random_ids(300, 5);
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    const auto model = sparse_model(threads);
    Session a(model, options(KvType::f16)), b(model, options(KvType::f16)), c(model, options(KvType::f16));
    a.append(ids);
    b.append(random_ids(70, 6));
    c.append(ids);
    Session* both[] = {&a, &b};
    const TokenId next[] = {7, 8};
    Session::append_batch(both, next);
    EXPECT_EQ(copy(a.logits()), copy(c.append({next, 1})));
    if (first.empty()) first = copy(a.logits());
    EXPECT_EQ(copy(a.logits()), first) << threads << " threads";
  }
}

}  // namespace
}  // namespace mneme::sparse_model_test
