// Processes that agree, talk, finish, fail and vanish; here they are threads.
#include "parallel/peers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "core/fail.h"
#include "parallel/local_transport.h"
#include "parallel/plugin_transport.h"

namespace mneme::peers_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

PeersOptions quick() {
  PeersOptions options;
  options.lost_after = std::chrono::milliseconds(3000);
  options.farewell = std::chrono::milliseconds(500);
  return options;
}

/// Runs body(peers) for every rank in a thread; what each throws, as "code: message", or "" if nothing.
std::vector<std::string> run_all(LocalWorld& world, uint32_t size, const std::function<void(Peers&)>& body,
                                 const PeersOptions& options = quick()) {
  std::vector<std::string> said(size);
  std::vector<std::thread> threads;
  for (uint32_t r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      Peers peers(world.transport(r), options);
      try {
        body(peers);
      } catch (const Error& error) {
        said[r] = std::string(to_string(error.code())) + ": " + error.what();
        peers.give_up(error);
      }
    });
  for (std::thread& thread : threads) thread.join();
  return said;
}

MessageBytes bytes_of(std::string_view text) {
  MessageBytes out;
  for (const char c : text) out.push_back(static_cast<std::byte>(c));
  return out;
}

TEST(Peers, AnswersComeInOrderAndAllFinish) {
  LocalWorld world(3);
  const auto said = run_all(world, 3, [](Peers& peers) {
    peers.agree({{"model", "a"}});
    if (peers.rank() == 0) {
      for (int i = 0; i < 100; ++i)
        for (uint32_t r = 1; r < 3; ++r) peers.send(r, bytes_of(std::to_string(i)));
      std::vector<int> next(3, 0);
      for (int i = 0; i < 200; ++i) {
        const auto answer = peers.receive();
        ASSERT_TRUE(answer.has_value());
        EXPECT_EQ(answer->bytes, bytes_of(std::to_string(next[answer->from]++)));
      }
      peers.finish();
    } else {
      while (auto message = peers.receive()) peers.send(0, std::move(message->bytes));
    }
  });
  EXPECT_THAT(said, ::testing::Each(""));
  EXPECT_EQ(world.closed(), 3u);
}

TEST(Peers, DisagreementIsSaidByAll) {
  LocalWorld world(3);
  const auto said = run_all(world, 3, [](Peers& peers) {
    peers.agree({{"model", peers.rank() == 2 ? "b" : "a"}, {"type", "q8_0"}});
    peers.receive();
  });
  for (uint32_t r = 0; r < 3; ++r)
    EXPECT_THAT(said[r], AllOf(HasSubstr("mismatch"),
                               HasSubstr("process 2 of 3 disagrees with process 0 on model: b and a")))
        << r;
  EXPECT_EQ(world.closed(), 0u);
}

// ... and as soon as all know it: who gave up first hears from the others, too.
TEST(Peers, AnErrorEndsAllWithItsReason) {
  LocalWorld world(3);
  PeersOptions options = quick();
  options.farewell = std::chrono::seconds(30);
  const auto begin = std::chrono::steady_clock::now();
  const auto said = run_all(
      world, 3,
      [](Peers& peers) {
        peers.agree({});
        if (peers.rank() == 1) fail(ErrorCode::not_found, "there is no file x");
        peers.receive();
      },
      options);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_EQ(said[1], "not_found: there is no file x");
  for (const uint32_t r : {0u, 2u})
    EXPECT_EQ(said[r], "not_found: process 1 of 3 gave up: there is no file x");
}

TEST(Peers, AnErrorBeforeTheAgreementEndsAllToo) {
  LocalWorld world(2);
  const auto said = run_all(world, 2, [](Peers& peers) {
    if (peers.rank() == 1) fail(ErrorCode::io, "no disk");
    peers.agree({});
  });
  EXPECT_EQ(said[0], "io: process 1 of 2 gave up: no disk");
}

TEST(Peers, AProcessThatVanishesIsLost) {
  LocalWorld world(3);
  PeersOptions options = quick();
  options.lost_after = std::chrono::milliseconds(1500);
  const auto begin = std::chrono::steady_clock::now();
  const auto said = run_all(
      world, 3,
      [&](Peers& peers) {
        peers.agree({});
        if (peers.rank() == 2) world.kill(2);
        peers.receive();
      },
      options);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  for (const uint32_t r : {0u, 1u}) EXPECT_THAT(said[r], HasSubstr("process 2 of 3 ")) << r;
  EXPECT_THAT(said[0] + said[1], HasSubstr("network: process 2 of 3 was lost: no sign of life for 1.5 s"));
}

TEST(Peers, MessagesThatMakeNoSenseAreCorrupt) {
  for (const std::string_view bad : {"", "\x09", "\xff\x03", "\x02\x01"}) {
    LocalWorld world(2);
    const auto said = run_all(world, 2, [&](Peers& peers) {
      peers.agree({});
      if (peers.rank() == 0) world.inject(1, 0, bytes_of(bad));
      peers.receive();
    });
    EXPECT_THAT(said[0], HasSubstr("corrupt: ")) << said[0];
    EXPECT_THAT(said[1], HasSubstr("process 0 of 2 gave up")) << said[1];
  }
}

TEST(Launched, SaysWhatTheLauncherSays) {
  const auto with = [](std::map<std::string, std::string> values) {
    return launched_as([values](const char* name) -> std::optional<std::string> {
      const auto at = values.find(name);
      return at == values.end() ? std::nullopt : std::optional(at->second);
    });
  };
  EXPECT_FALSE(with({}).has_value());
  EXPECT_FALSE(with({{"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}}).has_value());
  const auto two = with(
      {{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "2"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"}});
  ASSERT_TRUE(two.has_value());
  EXPECT_EQ(two.value_or(LaunchedAs{}).rank, 2u);
  EXPECT_EQ(two.value_or(LaunchedAs{}).size, 4u);
  EXPECT_EQ(two.value_or(LaunchedAs{}).on_this_machine, 3u);
  EXPECT_TRUE(with({{"PMI_SIZE", "2"}, {"PMI_RANK", "1"}}).has_value());
  EXPECT_THROW(with({{"PMI_SIZE", "2"}}), Error);
  EXPECT_THROW(with({{"PMI_SIZE", "two"}, {"PMI_RANK", "1"}}), Error);
  EXPECT_THROW(with({{"PMI_SIZE", "2"}, {"PMI_RANK", "2"}}), Error);
}

TEST(Plugin, RefusesWhatIsNoTransport) {
  EXPECT_THROW(open_plugin("/no/such/library.so"), Error);
  try {
    open_plugin(MNEME_TEST_DATA "/models/llama.gguf");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
  }
  try {
    open_plugin("libdl-of-no-machine.so");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::not_found);
  }
}

}  // namespace
}  // namespace mneme::peers_test
