// Every kind of mixer beside an independent implementation: the tiny checkpoints of tests/data/mixers with
// logits that tools/mixer_reference.py computed in float64, without caches or chunks. Pieces of several
// sizes, one of them a single token (the decode list), fix the mixers' states and caches across passes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ostream>

#include "core/file.h"
#include "core/json.h"
#include "mneme/error.h"
#include "mneme/session.h"

namespace mneme::mixer_models_test {
namespace {

std::string folder(const std::string& name) {
  return std::string(MNEME_TEST_DATA) + "/mixers/" + name;
}

std::vector<float> read_floats(const std::string& path) {
  const MappedFile file(path, LoadMode::read);
  const auto* values = reinterpret_cast<const float*>(file.bytes().data());
  return {values, values + file.size() / sizeof(float)};
}

struct Golden {
  std::vector<TokenId> ids;
  std::vector<float> prefill, decode;  // [ids, vocab]
};

Golden read_golden(const std::string& name) {
  const Json json = parse_json(read_text_file(folder(name) + "/golden.json"), "golden.json");
  Golden golden;
  golden.ids = json.at("ids").get<std::vector<TokenId>>();
  golden.prefill = read_floats(folder(name) + "/" + json.at("logits").get<std::string>());
  golden.decode = json.contains("decode")
                      ? read_floats(folder(name) + "/" + json.at("decode").get<std::string>())
                      : golden.prefill;
  return golden;
}

std::shared_ptr<const Model> load(const std::string& name, int threads = 2) {
  LoadOptions options;
  options.threads = threads;
  options.activation = Activation::float_;
  return Model::load(folder(name), options);
}

SessionOptions exact_options() {
  SessionOptions options;
  options.kv = KvType::f32;
  options.max_rollback = 4;
  return options;
}

/// Logits after each of `ids`, appended in pieces.
std::vector<float> append(Session& session, std::span<const TokenId> ids, size_t piece) {
  AppendOptions all;
  all.all_logits = true;
  std::vector<float> logits;
  for (size_t done = 0; done < ids.size(); done += piece) {
    const auto part = session.append(ids.subspan(done, std::min(piece, ids.size() - done)), all);
    logits.insert(logits.end(), part.begin(), part.end());
  }
  return logits;
}

double max_difference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return HUGE_VAL;
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(double{a[i]} - double{b[i]});
    most = std::isfinite(difference) ? std::max(most, difference) : HUGE_VAL;
  }
  return most;
}

class MixerModels : public testing::TestWithParam<const char*> {};

TEST_P(MixerModels, LogitsEqualTheReferenceForEveryPieceSize) {
  const Golden golden = read_golden(GetParam());
  const auto model = load(GetParam());
  // No piece is a single token, which would be decoding.
  for (const size_t piece : {size_t{7}, size_t{12}, golden.ids.size()}) {
    Session session(model, exact_options());
    EXPECT_LE(max_difference(append(session, golden.ids, piece), golden.prefill), 1e-4)
        << "pieces of " << piece;
    EXPECT_EQ(session.position(), golden.ids.size());
    EXPECT_EQ(session.tokens(), golden.ids);
  }
  Session session(model, exact_options());
  EXPECT_LE(max_difference(append(session, golden.ids, 1), golden.decode), 1e-4) << "token by token";
}

TEST_P(MixerModels, RollbackSnapshotAndForkContinueAsIfNothingHappened) {
  const Golden golden = read_golden(GetParam());
  const auto model = load(GetParam());
  const std::span<const TokenId> ids(golden.ids);
  const size_t half = ids.size() / 2, rest = ids.size() - half;
  Session straight(model, exact_options());
  append(straight, ids.first(half), half);
  const std::vector<float> want = append(straight, ids.subspan(half), 1);

  Session session(model, exact_options());
  append(session, ids.first(half), half);
  const Snapshot snapshot = session.snapshot();
  Session fork = session.fork();
  append(session, std::vector<TokenId>{9, 8, 7}, 1);  // something else, undone
  session.rollback(3);
  EXPECT_EQ(session.position(), half);
  EXPECT_EQ(append(session, ids.subspan(half), 1), want) << "after a rollback";
  EXPECT_EQ(append(fork, ids.subspan(half), 1), want) << "of a fork";
  fork.restore(snapshot);
  EXPECT_EQ(fork.position(), half);
  EXPECT_EQ(append(fork, ids.subspan(half), 1), want) << "of a restored snapshot";
  EXPECT_THROW(session.rollback(session.position() + 1), Error);
  EXPECT_EQ(rest * model->config().vocab, want.size());
}

TEST_P(MixerModels, BatchesOfSessionsEqualSingleOnes) {
  const Golden golden = read_golden(GetParam());
  const auto model = load(GetParam(), 3);
  constexpr size_t kSessions = 3;
  std::vector<Session> sessions;
  for (size_t i = 0; i < kSessions; ++i) {  // at different positions
    sessions.emplace_back(model, exact_options());
    append(sessions[i], std::span(golden.ids).first(5 + 4 * i), 30);
  }
  for (size_t step = 0; step < 4; ++step) {
    std::vector<Session*> batch;
    std::vector<TokenId> ids;
    std::vector<std::vector<float>> want;
    for (Session& session : sessions) {
      Session alone = session.fork();
      ids.push_back(golden.ids[session.position()]);
      const auto logits = alone.append(std::span(ids).last(1));
      want.emplace_back(logits.begin(), logits.end());
      batch.push_back(&session);
    }
    Session::append_batch(batch, ids);
    for (size_t i = 0; i < kSessions; ++i)
      EXPECT_LE(max_difference(sessions[i].logits(), want[i]), 1e-5) << "session " << i << ", step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, MixerModels,
                         testing::Values("window_exact", "window_plus_one", "window_plus_one_prefill",
                                         "gla_low_rank", "gla_matrix", "gla_tied", "delta", "hybrid",
                                         "parallel", "parallel_softmax", "sinks", "sinks_hybrid",
                                         "moe_softmax", "moe_sigmoid", "moe_adaptive"));

// Windows give back pages on the way; what a later query sees must still be there, also after a rollback.
TEST(MixerModelsApart, LongRunsWithReleasedPagesEqualOnePass) {
  for (const char* name : {"window_exact", "window_plus_one", "window_plus_one_prefill", "sinks",
                           "sinks_hybrid", "parallel", "hybrid"}) {
    const auto model = load(name);
    std::vector<TokenId> ids(700);
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<TokenId>((i * i + 7 * i) % model->config().vocab);
    Session whole(model, exact_options()), pieces(model, exact_options());
    const std::vector<float> want = append(whole, ids, ids.size());
    for (size_t done = 0; done < ids.size();) {  // 2 to 90 tokens at a time, some of them twice
      const size_t count = std::min<size_t>(2 + done * 37 % 89, ids.size() - done);
      const auto part = std::span(ids).subspan(done, count);
      append(pieces, std::vector<TokenId>{1, 2, 3}, 3);
      pieces.rollback(3);
      if (count == 1) break;  // a pass of one token is decoding
      const auto logits = append(pieces, part, count);
      const size_t vocab = model->config().vocab;
      EXPECT_LE(max_difference(logits, std::span(want).subspan(done * vocab, count * vocab)), 1e-4)
          << name << " at " << done;
      done += count;
    }
    EXPECT_GE(pieces.position() + 1, ids.size());
  }
}

// The references would notice: one key more or less is far away.
TEST(MixerModelsApart, TheEdgeOfAWindowMatters) {
  const Golden golden = read_golden("window_plus_one_prefill");
  EXPECT_GT(max_difference(golden.prefill, golden.decode), 0.1);
}

}  // namespace
}  // namespace mneme::mixer_models_test
