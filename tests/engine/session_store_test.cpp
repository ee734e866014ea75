// The folder of stored sessions: what it finds again, what it throws away, and that neither damage nor other
// writers cost more than a reading.
#include "engine/session_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "core/file.h"
#include "engine/tiny_models.h"
#include "mneme/error.h"
#include "scratch.h"

namespace mneme::session_store_test {
namespace {

constexpr uint64_t kPlenty = uint64_t{1} << 30;

std::vector<TokenId> ids_of(size_t count, uint32_t seed) {
  std::vector<TokenId> ids(count);
  for (size_t i = 0; i < count; ++i)
    ids[i] = static_cast<TokenId>(3 + (i * i * 7 + i * 13 + 31 * seed + seed * i) % 60);
  return ids;
}

class SessionStoreTest : public testing::Test {
 protected:
  Session session(KvType kv = KvType::f16) const {
    SessionOptions options;
    options.kv = kv;
    options.max_context = 4096;
    return Session(model_, options);
  }
  Session read(std::span<const TokenId> ids, KvType kv = KvType::f16) const {
    Session out = session(kv);
    out.append(ids);
    return out;
  }
  /// Gives every file a time of its own, so that the order of use does not depend on the clock's steps.
  void set_used(const fs::path& path, int seconds) const {
    fs::last_write_time(path, fs::file_time_type::clock::now() + std::chrono::seconds(seconds));
  }
  std::vector<fs::path> files() const {
    std::vector<fs::path> out;
    for (const auto& entry : fs::directory_iterator(folder_)) out.push_back(entry.path());
    return out;
  }
  static void damage(const fs::path& path, uint64_t from_end) {
    std::string bytes = read_text_file(path);
    bytes[bytes.size() - from_end] = static_cast<char>(bytes[bytes.size() - from_end] ^ 1);
    std::ofstream(path, std::ios::binary) << bytes;
  }

  ScratchFolder scratch_;
  const fs::path folder_ = scratch_ / "sessions";                  // made by the first store that needs it
  std::shared_ptr<const Model> model_ = load_tiny("llama");        // full attention
  std::shared_ptr<const Model> forgetful_ = load_tiny("mistral");  // windows of 8
};

TEST_F(SessionStoreTest, WhatWasReadIsFoundAgainAndTheLongestBeginningWins) {
  SessionStore store(folder_, kPlenty);
  const auto text = ids_of(90, 1);
  Session fresh = session();
  EXPECT_EQ(store.restore(fresh, text), 0u) << "no folder yet";
  EXPECT_TRUE(store.add(read(std::span(text).first(30))));
  EXPECT_TRUE(store.add(read(ids_of(50, 2))));
  EXPECT_EQ(store.restore(fresh, text), 30u);
  EXPECT_TRUE(store.add(read(std::span(text).first(60))));
  EXPECT_EQ(store.restore(fresh, text, 30), 60u);
  EXPECT_EQ(store.restore(fresh, text, 60), 0u) << "not more than is known already";
  EXPECT_EQ(fresh.position(), 60u);
  // What is restored goes on like what was never stored.
  const auto rest = std::span(text).subspan(60);
  const auto logits = fresh.append(rest);
  const std::vector<float> got(logits.begin(), logits.end());
  Session straight = read(std::span(text).first(60));
  const auto want = straight.append(rest);
  EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin(), want.end()));
}

TEST_F(SessionStoreTest, TheWholePromptIsNeverRestoredAndAnotherEndIsRolledBack) {
  SessionStore store(folder_, kPlenty);
  auto text = ids_of(40, 1);
  store.add(read(text));
  Session fresh = session();
  EXPECT_EQ(store.restore(fresh, text), 39u) << "the last token's logits are needed";
  text[33] = text[33] == 5 ? 6 : 5;
  EXPECT_EQ(store.restore(fresh, text), 33u);
  EXPECT_TRUE(std::equal(fresh.tokens().begin(), fresh.tokens().end(), text.begin()));
}

TEST_F(SessionStoreTest, EqualStatesAreStoredOnceAndNamedByContent) {
  SessionStore store(folder_, kPlenty), again(folder_, kPlenty);
  const auto text = ids_of(40, 1);
  store.add(read(text));
  ASSERT_EQ(files().size(), 1u);
  const fs::path path = files().front();
  set_used(path, -100);
  const auto before = fs::last_write_time(path);
  again.add(read(text));
  EXPECT_EQ(files(), std::vector{path});
  EXPECT_GT(fs::last_write_time(path), before) << "it counts as used";
  again.add(read(text, KvType::f32));
  EXPECT_EQ(files().size(), 2u) << "other options are another state";
  Session other = session(KvType::int8);
  EXPECT_EQ(again.restore(other, text), 0u);
}

TEST_F(SessionStoreTest, AStateThatCanBeRolledBackReplacesItsBeginnings) {
  const auto text = ids_of(300, 1);
  SessionStore store(folder_, kPlenty);
  for (const size_t count : {100u, 200u, 300u}) store.add(read(std::span(text).first(count)));
  ASSERT_EQ(store.list().size(), 1u);
  EXPECT_EQ(store.list()[0].info.position, 300u);
  EXPECT_TRUE(store.list()[0].info.tokens.empty());
  // Windows forget: what cannot be gone back to keeps its own file.
  SessionOptions options;
  options.max_context = 4096;
  for (const size_t count : {100u, 200u, 290u, 300u}) {
    Session session(forgetful_, options);
    session.append(std::span(text).first(count));
    store.add(session);
  }
  std::vector<uint64_t> positions;
  for (const auto& entry : store.list())
    if (entry.info.model_hash == forgetful_->hash()) positions.push_back(entry.info.position);
  std::sort(positions.begin(), positions.end());
  EXPECT_EQ(positions, (std::vector<uint64_t>{100, 200, 300}));
}

TEST_F(SessionStoreTest, TheLeastRecentlyUsedGoFirstAndTheBudgetHolds) {
  const auto text = [](uint32_t seed) { return ids_of(64, seed); };
  {
    SessionStore store(folder_, kPlenty);
    store.add(read(text(1)));
  }
  const uint64_t size = fs::file_size(files().front()), budget = 3 * size + size / 2;
  SessionStore store(folder_, budget);
  for (const uint32_t seed : {2u, 3u}) store.add(read(text(seed)));
  ASSERT_EQ(store.list().size(), 3u);
  int age = 0;
  for (const auto& entry : store.list()) set_used(entry.path, -100 + --age);
  Session fresh = session();
  EXPECT_EQ(store.restore(fresh, text(1)), 63u);  // used now, so the second is the oldest or the third
  store.add(read(text(4)));
  uint64_t total = 0;
  for (const auto& path : files()) total += fs::file_size(path);
  EXPECT_LE(total, budget);
  EXPECT_EQ(files().size(), 3u);
  EXPECT_EQ(store.restore(fresh, text(1)), 63u) << "it was used last";
  EXPECT_EQ(store.restore(fresh, text(4)), 63u);
  SessionStore tiny(folder_, 10);
  EXPECT_FALSE(tiny.add(read(text(5)))) << "larger than the whole budget";
  EXPECT_EQ(files().size(), 3u) << "and costs no other file its place";
}

TEST_F(SessionStoreTest, DamagedFilesCostAReadingAndNothingElse) {
  SessionStore store(folder_, kPlenty);
  const auto text = ids_of(60, 1);
  store.add(read(std::span(text).first(20), KvType::f32));
  store.add(read(text));
  store.add(read(text, KvType::f32));  // removes its own beginning only
  ASSERT_EQ(files().size(), 2u);
  std::ofstream(folder_ / "junk.session") << "no session at all";
  std::ofstream(folder_ / "notes.txt") << "not the store's";
  fs::create_directory(folder_ / "folder.session");
  for (const auto& entry : store.list())
    if (entry.info.kv == KvType::f16) damage(entry.path, 30);
  Session fresh = session();
  EXPECT_EQ(store.restore(fresh, text), 0u);
  EXPECT_EQ(fresh.position(), 0u) << "the session is as it was";
  EXPECT_EQ(store.list().size(), 1u) << "the damaged file is removed";
  EXPECT_TRUE(store.add(read(text)));
  EXPECT_EQ(store.restore(fresh, text), 59u);
  // A better file that is damaged gives way to the next.
  const auto longer = ids_of(90, 1);
  store.add(read(std::span(longer).first(80)));
  for (const auto& entry : store.list())
    if (entry.info.position == 80) damage(entry.path, 30);
  store.add(read(std::span(longer).first(40)));
  EXPECT_EQ(store.restore(fresh, longer), 40u);
  EXPECT_TRUE(fs::exists(folder_ / "notes.txt"));
  store.clear();
  EXPECT_TRUE(store.list().empty());
  EXPECT_TRUE(fs::exists(folder_ / "junk.session")) << "what is no session is not the store's to delete";
}

// Several processes use one folder; threads with a store of their own stand for them.
TEST_F(SessionStoreTest, WritersAtOnceLeaveWholeFilesWithinTheBudget) {
  {
    SessionStore store(folder_, kPlenty);
    store.add(read(ids_of(64, 99)));
  }
  const uint64_t size = fs::file_size(files().front()), budget = 6 * size;
  std::vector<std::thread> writers;
  std::atomic<int> wrong{0};
  for (uint32_t w = 0; w < 4; ++w)
    writers.emplace_back([&, w] {
      SessionStore store(folder_, budget);
      for (uint32_t round = 0; round < 12; ++round) {
        const auto text = ids_of(64, round % 5 + (w % 2) * 5);  // two of them write the same texts
        try {
          Session one = session();
          const uint64_t held = store.restore(one, text);
          if (!std::equal(one.tokens().begin(), one.tokens().end(), text.begin())) ++wrong;
          one.append(std::span(text).subspan(held));
          store.add(one);
        } catch (const Error& error) {
          ADD_FAILURE() << error.what();
        }
      }
    });
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(wrong, 0);
  for (const auto& path : files()) {
    EXPECT_EQ(path.extension(), ".session") << path;
    EXPECT_NO_THROW(Snapshot::load(path)) << path;
  }
  SessionStore(folder_, budget).add(read(ids_of(64, 100)));
  uint64_t total = 0;
  for (const auto& path : files()) total += fs::file_size(path);
  EXPECT_LE(total, budget);
}

TEST_F(SessionStoreTest, AnEmptySessionIsRefused) {
  SessionStore store(folder_, kPlenty);
  EXPECT_THROW(store.add(session()), Error);
  EXPECT_EQ(store.restore(*std::make_unique<Session>(session()), {}), 0u);
}

}  // namespace
}  // namespace mneme::session_store_test
