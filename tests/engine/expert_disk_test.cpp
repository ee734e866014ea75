// Experts on disk: the same bits as from memory, however few have room, whoever asks; and what a disk may do
// to a model that runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <fstream>
#include <set>
#include <thread>

#include "core/fail.h"
#include "engine/memory_models.h"
#include "engine/session_impl.h"
#include "engine/tiny_models.h"
#include "model/expert_store.h"
#include "model/load.h"
#include "scratch.h"
#include "simd/stripes.h"

namespace mneme::expert_disk_test {
namespace {

using ::testing::HasSubstr;

// The cache folder, in which the experts' file is made.
class ExpertsOnDisk : public ::testing::Test {
 protected:
  std::vector<fs::path> expert_files() const {
    std::vector<fs::path> out;
    if (fs::exists(home_ / "cache" / "experts"))
      for (const auto& entry : fs::directory_iterator(home_ / "cache" / "experts"))
        out.push_back(entry.path());
    return out;
  }
  ScratchHome home_;
};

ExpertStatistics statistics_of(const std::shared_ptr<const Model>& model) {
  return model->experts().value_or(ExpertStatistics());
}

LoadOptions on_disk(Placement placement, uint64_t budget, const char* type = "") {
  LoadOptions options;
  options.experts = placement;
  options.experts_budget = budget;
  options.type = type;
  options.threads = 2;
  return options;
}

uint64_t record_bytes(const std::string& name, const char* type = "") {
  return statistics_of(load_tiny(name, on_disk(Placement::direct, 1 << 30, type))).expert_bytes;
}

std::vector<float> pieces_of(const std::shared_ptr<const Model>& model, std::span<const TokenId> ids,
                             size_t piece) {
  return logits_in_pieces(model, ids, piece, KvType::f16);
}

TEST_F(ExpertsOnDisk, EqualBitsFromEveryPlaceWithTheSmallestBudget) {
  for (const char* name : {"qwen3_moe", "qwen2_moe", "dots1", "mixers/moe_adaptive"})
    for (const char* type : {"", "q8_0"}) {
      const Golden golden = load_golden(name);
      LoadOptions ram;
      ram.type = type;
      const auto wanted = load_tiny(name, ram);
      ASSERT_FALSE(wanted->experts());
      const uint64_t record = record_bytes(name, type);
      uint32_t top_k = 0;
      for (const LayerConfig& layer : wanted->config().layers)
        if (layer.ffn.moe()) top_k = std::max(top_k, std::min(layer.ffn.top_k, layer.ffn.experts));
      for (const Placement placement : {Placement::mmap, Placement::direct})
        for (const uint64_t slots : {uint64_t{top_k}, uint64_t{top_k} + 1, uint64_t{1000}}) {
          const auto model = load_tiny(name, on_disk(placement, slots * record, type));
          for (const size_t piece : {size_t{1}, size_t{5}, golden.ids.size()})
            EXPECT_EQ(pieces_of(model, golden.ids, piece), pieces_of(wanted, golden.ids, piece))
                << name << " " << type << " " << to_string(placement) << " " << slots << " " << piece;
          const ExpertStatistics experts = statistics_of(model);
          EXPECT_EQ(experts.placement, to_string(placement));
          EXPECT_EQ(experts.slots, std::min(slots, experts.experts));
          EXPECT_EQ(experts.bytes_read % kExpertAlign, 0u);
          EXPECT_GE(experts.bytes_read, experts.misses * kExpertAlign);
          EXPECT_GT(experts.hits + experts.misses, 0u);
          // With room for all, every expert is read at most once.
          if (slots == 1000) {
            EXPECT_LE(experts.misses, experts.experts);
          }
        }
    }
}

TEST_F(ExpertsOnDisk, ABatchWhoseExpertsHaveNoRoomTogetherIsTakenInParts) {
  const Golden golden = load_golden("qwen3_moe");
  const auto run = [&](const std::shared_ptr<const Model>& model) {
    std::vector<Session> sessions;
    std::vector<Session*> all;
    std::vector<TokenId> next;
    for (size_t i = 0; i < 5; ++i) {
      sessions.emplace_back(model);
      sessions.back().append(std::span(golden.ids).first(i + 1));
    }
    for (size_t i = 0; i < 5; ++i) {
      all.push_back(&sessions[i]);
      next.push_back(golden.ids[i + 1]);
    }
    std::vector<float> out;
    for (int step = 0; step < 3; ++step) {
      Session::append_batch(all, next);
      for (const Session& session : sessions)
        out.insert(out.end(), session.logits().begin(), session.logits().end());
    }
    return out;
  };
  const uint64_t record = record_bytes("qwen3_moe");
  const auto wanted = run(load_tiny("qwen3_moe"));
  for (const uint64_t slots : {3, 7})
    EXPECT_EQ(run(load_tiny("qwen3_moe", on_disk(Placement::direct, slots * record))), wanted) << slots;
}

// Throws when a layer of its sequence is routed, once.
class FailingObserver final : public RouteObserver {
 public:
  void see(size_t layer, int, int64_t, std::span<const Route>, std::span<const float>) override {
    if (layer == 1 && !failed.exchange(true)) fail(ErrorCode::internal, "seen enough");
  }
  std::atomic<bool> failed{false};
};

// Two sequences in two passes, of which the second fails: the first has not advanced either, and its
// convolution, which keeps as many rows as the next token reads, is as before.
TEST_F(ExpertsOnDisk, ABatchThatFailsInALaterPartLeavesAllSequencesAsTheyWere) {
  const Golden golden = load_golden("mixtral");
  const MemoryGolden memory = load_memory_golden();
  const fs::path pack = home_ / "memory.engram";
  write_pack(pack, memory_pack(memory, load_tiny("mixtral")->tokenizer()));
  LoadOptions options = on_disk(Placement::direct, 2 * record_bytes("mixtral"));  // room for one row
  const auto model = load_with_memory(pack, "mixtral", options);
  SessionOptions exact;
  exact.max_rollback = 0;
  const auto ids = std::span(golden.ids);
  Session first(model, exact), second(model, exact), twin(model, exact);
  for (Session* session : {&first, &second, &twin}) session->append(ids.first(20));
  FailingObserver observer;
  second.impl().routes = &observer;
  const std::vector<TokenId> next{ids[20], ids[20]};
  try {
    Session::append_batch(std::vector<Session*>{&first, &second}, next);
    FAIL() << "the observer was not asked";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "seen enough");
  }
  EXPECT_EQ(first.position(), 20u);
  Session::append_batch(std::vector<Session*>{&first, &second}, next);
  twin.append(ids.subspan(20, 1));
  for (const Session* session : {&first, &second})
    EXPECT_TRUE(std::ranges::equal(session->logits(), twin.logits()));
}

TEST_F(ExpertsOnDisk, SessionsOfSeveralThreadsShareThem) {
  const Golden golden = load_golden("qwen2_moe");
  const auto wanted = pieces_of(load_tiny("qwen2_moe"), golden.ids, 1);
  for (const Placement placement : {Placement::mmap, Placement::direct}) {
    const auto model = load_tiny("qwen2_moe", on_disk(placement, 5 * record_bytes("qwen2_moe")));
    std::vector<std::vector<float>> got(4);
    std::vector<std::thread> threads;
    threads.reserve(got.size());
    for (auto& mine : got) threads.emplace_back([&] { mine = pieces_of(model, golden.ids, 1); });
    for (std::thread& thread : threads) thread.join();
    for (const auto& mine : got) EXPECT_EQ(mine, wanted);
  }
}

TEST_F(ExpertsOnDisk, ReadingAheadChangesNothingButTheReads) {
  const Golden golden = load_golden("qwen3_moe");
  LoadOptions options = on_disk(Placement::direct, 8 * record_bytes("qwen3_moe"));
  const auto ahead = load_tiny("qwen3_moe", options);
  options.experts_read_ahead = false;
  const auto asked = load_tiny("qwen3_moe", options);
  EXPECT_EQ(pieces_of(ahead, golden.ids, 1), pieces_of(asked, golden.ids, 1));
  EXPECT_EQ(statistics_of(asked).ahead, 0u);
  EXPECT_GT(statistics_of(ahead).ahead, 0u);
  EXPECT_LE(statistics_of(ahead).ahead_used, statistics_of(ahead).ahead);
  EXPECT_EQ(statistics_of(asked).bytes_read, statistics_of(asked).misses * statistics_of(asked).expert_bytes);
}

Error error_of_loading(const std::string& name, const LoadOptions& options) {
  try {
    load_tiny(name, options);
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::internal, "it was loaded");
}

TEST_F(ExpertsOnDisk, ABudgetTooSmallIsRefusedAndSaysWhatWouldDo) {
  const uint64_t record = record_bytes("qwen3_moe");
  for (const uint64_t budget : {uint64_t{1}, record - 1, record, 3 * record - 1}) {
    const Error error = error_of_loading("qwen3_moe", on_disk(Placement::direct, budget));
    EXPECT_EQ(error.code(), ErrorCode::limit);
    EXPECT_THAT(error.what(), HasSubstr(std::to_string(budget) + " bytes for experts holds " +
                                        std::to_string(budget / record)));
    EXPECT_THAT(error.what(), HasSubstr("give at least " + std::to_string(3 * record)));
  }
  load_tiny("qwen3_moe", on_disk(Placement::direct, 3 * record));
  LoadOptions read = on_disk(Placement::mmap, 0);
  read.mmap = false;
  EXPECT_EQ(error_of_loading("qwen3_moe", read).code(), ErrorCode::invalid_argument);
  EXPECT_EQ(error_of_loading("qwen3_moe", on_disk(Placement::cache, 0)).code(), ErrorCode::invalid_argument);
}

TEST_F(ExpertsOnDisk, ModelsWithoutExpertsMakeNoFile) {
  const auto model = load_tiny("llama", on_disk(Placement::direct, 1));
  EXPECT_FALSE(model->experts());
  EXPECT_TRUE(expert_files().empty());
}

TEST_F(ExpertsOnDisk, TheFileIsMadeOnceAndAnewWhenItIsNotWhole) {
  const LoadOptions options = on_disk(Placement::direct, 1 << 30);
  const Golden golden = load_golden("mixtral");
  const auto wanted = pieces_of(load_tiny("mixtral"), golden.ids, 1);
  load_tiny("mixtral", options);
  ASSERT_EQ(expert_files().size(), 1u);
  const fs::path file = expert_files().front();
  const auto time = fs::last_write_time(file);
  EXPECT_EQ(pieces_of(load_tiny("mixtral", options), golden.ids, 1), wanted);
  EXPECT_EQ(fs::last_write_time(file), time);
  const uint64_t size = fs::file_size(file);
  fs::resize_file(file, size - 1);
  EXPECT_EQ(pieces_of(load_tiny("mixtral", options), golden.ids, 1), wanted);
  EXPECT_EQ(fs::file_size(file), size);
  load_tiny("mixtral", on_disk(Placement::direct, 1 << 30, "q8_0"));  // another layout: a file of its own
  EXPECT_EQ(expert_files().size(), 2u);
}

TEST_F(ExpertsOnDisk, AFileThatBecomesShorterEndsThePassWithAnError) {
  const Golden golden = load_golden("qwen3_moe");
  const auto wanted = pieces_of(load_tiny("qwen3_moe"), golden.ids, golden.ids.size());
  for (const Placement placement : {Placement::mmap, Placement::direct}) {
    const auto model = load_tiny("qwen3_moe", on_disk(placement, 4 * record_bytes("qwen3_moe")));
    const fs::path file = statistics_of(model).path;
    const fs::path copy = home_ / "copy";
    fs::copy_file(file, copy, fs::copy_options::overwrite_existing);
    fs::resize_file(file, kExpertAlign);
    Session session(model);
    for (const size_t count : {size_t{1}, golden.ids.size()}) {
      try {
        session.append(std::span(golden.ids).first(count));
        ADD_FAILURE() << "experts of a file without records";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::io);
        EXPECT_THAT(error.what(), HasSubstr("became shorter"));
        EXPECT_THAT(error.what(), HasSubstr(file.string()));
      }
      EXPECT_EQ(session.position(), 0u);
    }
    if (placement == Placement::mmap) continue;  // its pages stay what they were
    std::ofstream(file, std::ios::binary | std::ios::in | std::ios::out) << std::ifstream(copy).rdbuf();
    AppendOptions all;
    all.all_logits = true;
    const auto got = session.append(golden.ids, all);
    EXPECT_EQ(std::vector<float>(got.begin(), got.end()), wanted);
  }
}

// Changes one byte of every 4096 behind the header.
void damage(const fs::path& file) {
  std::fstream bytes(file, std::ios::binary | std::ios::in | std::ios::out);
  const uint64_t size = fs::file_size(file);
  for (uint64_t at = kExpertAlign; at + 1 < size; at += kExpertAlign) {
    bytes.seekg(static_cast<std::streamoff>(at));
    const int was = bytes.get();
    bytes.seekp(static_cast<std::streamoff>(at));
    bytes.put(static_cast<char>(was ^ 16));
  }
  ASSERT_TRUE(bytes.flush());
}

TEST_F(ExpertsOnDisk, ADamagedRecordEndsThePassWithAnError) {
  const Golden golden = load_golden("qwen3_moe");
  const auto wanted = pieces_of(load_tiny("qwen3_moe"), golden.ids, golden.ids.size());
  for (const Placement placement : {Placement::mmap, Placement::direct}) {
    const auto model = load_tiny("qwen3_moe", on_disk(placement, 4 * record_bytes("qwen3_moe")));
    const fs::path file = statistics_of(model).path;
    damage(file);
    Session session(model);
    for (const size_t count : {size_t{1}, golden.ids.size()}) {
      try {
        session.append(std::span(golden.ids).first(count));
        ADD_FAILURE() << "experts that are not what was written, " << to_string(placement);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::corrupt);
        EXPECT_THAT(error.what(), HasSubstr("does not match its checksum; remove the file"));
        EXPECT_THAT(error.what(), HasSubstr(file.string()));
      }
      EXPECT_EQ(session.position(), 0u);
    }
    damage(file);                                  // the same bits again: it is whole
    if (placement == Placement::direct) continue;  // what was read ahead is in memory as it was
    AppendOptions all;
    all.all_logits = true;
    const auto got = session.append(golden.ids, all);
    EXPECT_EQ(std::vector<float>(got.begin(), got.end()), wanted);
  }
}

TEST_F(ExpertsOnDisk, AFileWithDamagedSumsIsMadeAnew) {
  const LoadOptions options = on_disk(Placement::direct, 1 << 30);
  load_tiny("mixtral", options);
  ASSERT_EQ(expert_files().size(), 1u);
  const fs::path file = expert_files().front();
  const std::string whole = read_text_file(file);
  for (const size_t from_end : {size_t{1}, size_t{9}}) {  // in the sum of sums, and in the last record's
    std::string bytes = whole;
    bytes[bytes.size() - from_end] = static_cast<char>(bytes[bytes.size() - from_end] ^ 1);
    std::ofstream(file, std::ios::binary) << bytes;
    load_tiny("mixtral", options);
    EXPECT_EQ(read_text_file(file), whole) << from_end;
  }
}

// A process that has ended: its id belongs to nobody for a while.
pid_t ended_process() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  return child;
}

TEST_F(ExpertsOnDisk, MakingAFileRemovesThoseThatNobodyCanUse) {
  const fs::path folder = home_ / "cache" / "experts";
  fs::create_directories(folder);
  const std::string identity(64, 'a');
  const auto put = [&](const std::string& name, std::string text, bool old = true) {
    text.resize(kExpertAlign);
    std::ofstream(folder / name, std::ios::binary) << text;
    if (old) fs::last_write_time(folder / name, fs::file_time_type::clock::now() - std::chrono::hours(1));
  };
  const pid_t ended = ended_process();
  put("format.experts", "mneme experts 1\n" + identity + "\n");
  put("gone.experts", "mneme experts 2\n" + identity + "\n" + (home_ / "gone.gguf").string() + "\n");
  put(fmt::format("a.experts.{}-0.partial", ended), "part");
  const std::set<std::string> kept{"there.experts",
                                   "nameless.experts",
                                   "other.experts",
                                   "notes.txt",
                                   fmt::format("b.experts.{}-0.partial", ::getpid()),
                                   fmt::format("c.experts.{}-0.partial", ended),
                                   "d.partial"};
  put("there.experts", "mneme experts 2\n" + identity + "\n" + home_.path().string() + "\n");
  put("nameless.experts", "mneme experts 2\n" + identity + "\n\n");
  put("other.experts", "somebody else's");
  put("notes.txt", "mneme experts 1\n");
  put(fmt::format("b.experts.{}-0.partial", ::getpid()), "part");
  put(fmt::format("c.experts.{}-0.partial", ended), "part of a process on another machine", false);
  put("d.partial", "part");
  load_tiny("mixtral", on_disk(Placement::direct, 1 << 30));
  std::set<std::string> left;
  for (const fs::path& path : expert_files()) left.insert(path.filename().string());
  EXPECT_EQ(left.size(), kept.size() + 1);
  for (const std::string& name : kept) EXPECT_TRUE(left.contains(name)) << name;
}

// A disk that ends every read with the same result.
class FixedResult final : public ReadQueue {
 public:
  explicit FixedResult(int32_t result) : result_(result) {}
  void push(const ReadRequest& request) override { done_.push_back({request.slot, result_}); }
  void submit() override {}
  size_t reap(std::span<ReadDone> out, size_t at_least) override {
    require(done_.size() >= at_least, ErrorCode::internal, "more reads are waited for than were begun");
    const size_t count = std::min(out.size(), done_.size());
    std::copy_n(done_.begin(), count, out.begin());
    done_.erase(done_.begin(), done_.begin() + static_cast<ptrdiff_t>(count));
    return count;
  }

 private:
  const int32_t result_;
  std::deque<ReadDone> done_;
};

TEST_F(ExpertsOnDisk, ADiskThatFailsIsNamed) {
  const auto model = load_model(tiny_model_path("qwen3_moe"), on_disk(Placement::direct, 1 << 30));
  const ExpertLayout layout = model->expert_store->layout();
  const fs::path file = model->expert_store->statistics().path;
  model->expert_store.reset();
  ExpertStoreOptions options;
  options.budget_bytes = 3 * layout.largest_record;
  for (const auto& [result, says] : {std::pair(-EIO, "Input/output error"), {0, "became shorter"}}) {
    ExpertStore store(*model, layout, file, options, [result = result](uint32_t) {
      return ReadQueueFactory{"fixed", [result](uint32_t, std::span<std::byte>) {
                                return std::make_unique<FixedResult>(result);
                              }};
    });
    for (int again = 0; again < 2; ++again) {
      store.want(0, std::vector<int32_t>{0, 2, 5});
      EXPECT_EQ(store.order(), (std::vector<int32_t>{0, 2, 5}));
      for (const int32_t expert : store.order()) try {
          store.wait(0, expert);
          ADD_FAILURE() << "expert " << expert;
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::io);
          EXPECT_THAT(error.what(), HasSubstr(says));
          EXPECT_THAT(error.what(), HasSubstr("expert " + std::to_string(expert) + " of layer 0"));
        }
    }
    EXPECT_EQ(store.statistics().hits, 0u);
  }
}

TEST_F(ExpertsOnDisk, WantedExpertsComeBeforeThoseThatAreRead) {
  const auto model = load_model(tiny_model_path("qwen3_moe"), on_disk(Placement::direct, 1 << 30));
  ExpertStore& store = *model->expert_store;
  const auto experts = [](std::initializer_list<int32_t> list) { return std::vector<int32_t>(list); };
  store.want(0, experts({3, 4}));
  for (const int32_t expert : {3, 4}) store.wait(0, expert);
  store.want(0, experts({1, 3, 5}));
  EXPECT_EQ(store.order(), experts({3, 1, 5}));
  for (const int32_t expert : store.order()) store.wait(0, expert);
  store.ahead(1, experts({2}));
  store.want(1, experts({0, 2}));
  for (const int32_t expert : store.order()) store.wait(1, expert);
  const ExpertStatistics now = store.statistics();
  EXPECT_EQ(now.hits, 1u);
  EXPECT_EQ(now.misses, 6u);  // one of them a little ahead
  EXPECT_EQ(now.ahead, 1u);
  EXPECT_EQ(now.ahead_used, 1u);
  EXPECT_EQ(now.bytes_read, 6 * now.expert_bytes);
  // The matrices point at the experts' own weights.
  const auto ram = load_model(tiny_model_path("qwen3_moe"), {});
  for (const int32_t expert : {0, 2})
    for (const auto projection : {&ExpertWeights::gate, &ExpertWeights::up, &ExpertWeights::down}) {
      const auto matrix = [&](const ModelImpl& impl) {
        const auto& moe = impl.layers[1].moe;
        return moe ? (moe->experts[static_cast<size_t>(expert)].*projection).w : PackedMatrix();
      };
      const PackedMatrix got = matrix(*model), wanted = matrix(*ram);
      ASSERT_NE(got.data, nullptr);
      EXPECT_EQ(std::memcmp(got.data, wanted.data, matrix_bytes(wanted)), 0) << expert;
    }
}

}  // namespace
}  // namespace mneme::expert_disk_test
