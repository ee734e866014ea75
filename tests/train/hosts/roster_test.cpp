// How processes meet and miss each other, without Gloo: here each is a thread with a roster of its own.
#include "train/hosts/roster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "mneme/error.h"
#include "train/hosts/roster_message.h"

namespace mneme::train::roster_test {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Joined = std::future<std::unique_ptr<Roster>>;

RosterOptions options(uint32_t rank, uint32_t size, uint16_t port) {
  RosterOptions out;
  out.rank = rank;
  out.size = size;
  out.meeting_host = "127.0.0.1";
  out.port = port;
  out.run = "a run";
  out.join_timeout = milliseconds(20'000);
  return out;
}

Joined join(RosterOptions options) {
  return std::async(std::launch::async,
                    [moved = std::move(options)]() mutable { return Roster::join(std::move(moved)); });
}

struct Hub {
  explicit Hub(uint32_t size, milliseconds timeout = milliseconds(20'000)) {
    RosterOptions of_hub = options(0, size, 0);
    of_hub.listener = listen_on("127.0.0.1", 0);
    of_hub.join_timeout = timeout;
    port = own_port(of_hub.listener);
    roster = join(std::move(of_hub));
  }
  uint16_t port;
  Joined roster;
};

std::string error_of(Joined joined, ErrorCode code) {
  try {
    joined.get();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "no error";
}

TEST(Roster, ValuesReachEverybody) {
  Hub hub(3);
  Joined first = join(options(1, 3, hub.port)), second = join(options(2, 3, hub.port));
  const auto zero = hub.roster.get(), one = first.get(), two = second.get();
  EXPECT_EQ(one->address(), "127.0.0.1");
  one->set("a", std::string("x\0y", 3));
  zero->set("b", "");
  for (const auto& roster : {zero.get(), one.get(), two.get()}) {
    EXPECT_EQ(roster->wait("a", milliseconds(5'000)), std::string("x\0y", 3));
    EXPECT_EQ(roster->wait("b", milliseconds(5'000)), "");
    EXPECT_FALSE(roster->has("c"));
    EXPECT_FALSE(roster->wait("c", milliseconds(10)).has_value());
    EXPECT_FALSE(roster->loss().has_value());
  }
}

TEST(Roster, ARankIsTakenOnce) {
  Hub hub(3);
  Joined one = join(options(1, 3, hub.port));
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_THAT(error_of(join(options(1, 3, hub.port)), ErrorCode::mismatch),
              AllOf(HasSubstr("refuses process 1"), HasSubstr("rank 1 is taken by 127.0.0.1:")));
  Joined two = join(options(2, 3, hub.port));
  const auto zero = hub.roster.get(), first = one.get(), second = two.get();
  // And who comes after all are there hears the same at once, not after a time-out.
  EXPECT_THAT(error_of(join(options(2, 3, hub.port)), ErrorCode::mismatch), HasSubstr("rank 2 is taken"));
}

TEST(Roster, SizesAndRunsMustAgree) {
  Hub hub(2);
  EXPECT_THAT(error_of(join(options(1, 3, hub.port)), ErrorCode::mismatch),
              HasSubstr("it was started for 2 processes, process 1 for 3"));
  RosterOptions other = options(1, 2, hub.port);
  other.run = "another run";
  EXPECT_THAT(error_of(join(std::move(other)), ErrorCode::mismatch),
              HasSubstr("it runs [a run], process 1 [another run]"));
  Joined right = join(options(1, 2, hub.port));
  const auto one = right.get(), zero = hub.roster.get();
}

TEST(Roster, WhoIsMissingIsNamed) {
  Hub hub(4, milliseconds(1'000));
  RosterOptions alone = options(2, 4, hub.port);
  alone.join_timeout = milliseconds(1'500);
  Joined two = join(std::move(alone));
  EXPECT_THAT(error_of(std::move(hub.roster), ErrorCode::network),
              HasSubstr("still misses process 1, 3 of 4"));
  EXPECT_THAT(error_of(std::move(two), ErrorCode::network),
              HasSubstr("could not join process 0 at 127.0.0.1"));
}

TEST(Roster, BadAddressesAreNamedAtOnce) {
  RosterOptions nowhere = options(1, 2, 1);
  nowhere.meeting_host = "no.such.host.invalid";
  EXPECT_THAT(error_of(join(std::move(nowhere)), ErrorCode::invalid_argument),
              HasSubstr("\"no.such.host.invalid\" is no host"));
  RosterOptions not_here = options(0, 2, 29999);
  not_here.meeting_host = "192.0.2.1";  // of no machine: RFC 5737
  EXPECT_THAT(error_of(join(std::move(not_here)), ErrorCode::invalid_argument),
              HasSubstr("\"192.0.2.1\" is no address of this machine"));
  Hub hub(2);
  RosterOptions from_elsewhere = options(1, 2, hub.port);
  from_elsewhere.own_host = "192.0.2.1";
  EXPECT_THAT(error_of(join(std::move(from_elsewhere)), ErrorCode::invalid_argument),
              HasSubstr("\"192.0.2.1\" is no address of this machine"));
  EXPECT_THAT(error_of(join(options(0, 2, hub.port)), ErrorCode::io), HasSubstr("process 0 started twice?"));
  EXPECT_THAT(error_of(join(options(2, 2, hub.port)), ErrorCode::invalid_argument),
              HasSubstr("there is no process 2 among 2"));
  const auto one = join(options(1, 2, hub.port)).get();
  const auto zero = hub.roster.get();
}

TEST(Roster, StrangersAtThePortAreLeftOut) {
  Hub hub(2);
  std::string why;
  const auto stranger = connect_to("127.0.0.1", hub.port, "", milliseconds(1'000), why);
  ASSERT_TRUE(stranger.has_value());
  send_all(*stranger, "GET / HTTP/1.1\r\n\r\n", milliseconds(1'000));
  const auto silent = connect_to("127.0.0.1", hub.port, "", milliseconds(1'000), why);
  const auto one = join(options(1, 2, hub.port)).get();
  const auto zero = hub.roster.get();
  one->set("a", "1");
  EXPECT_EQ(zero->wait("a", milliseconds(5'000)), "1");
}

TEST(Roster, AProcessMayComeAgainBeforeTheStart) {
  Hub hub(3);
  RosterOptions hasty = options(1, 3, hub.port);
  hasty.join_timeout = milliseconds(200);
  EXPECT_THAT(error_of(join(std::move(hasty)), ErrorCode::network), HasSubstr("not all processes are there"));
  Joined one = join(options(1, 3, hub.port)), two = join(options(2, 3, hub.port));
  const auto zero = hub.roster.get(), first = one.get(), second = two.get();
}

TEST(Roster, GivingUpIsToldWithItsReason) {
  Hub hub(3);
  Joined first = join(options(1, 3, hub.port)), second = join(options(2, 3, hub.port));
  const auto zero = hub.roster.get(), two = second.get();
  auto one = first.get();
  std::promise<void> told;
  two->on_loss([&] { told.set_value(); });
  one->give_up("its disk is full");
  EXPECT_EQ(told.get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
  for (const auto& roster : {zero.get(), two.get()}) {
    const std::optional<Loss> loss = roster->wait_for_loss(milliseconds(5'000));
    ASSERT_TRUE(loss.has_value());
    EXPECT_EQ(loss->rank, 1u);
    EXPECT_EQ(loss->reason, "its disk is full");
  }
}

TEST(Roster, AGoodbyeIsNoLossButExplainsABrokenConnection) {
  Hub hub(2);
  Joined first = join(options(1, 2, hub.port));
  const auto zero = hub.roster.get();
  bool told = false;
  zero->on_loss([&] { told = true; });
  first.get().reset();
  const std::optional<Loss> loss = zero->wait_for_loss(milliseconds(5'000));
  ASSERT_TRUE(loss.has_value());
  EXPECT_EQ(loss->reason, "it ended before the others");
  EXPECT_FALSE(told);
}

TEST(RosterMessage, ComesBackFromItsBytesInPieces) {
  const RosterMessage message{RosterMessage::Kind::set, 7, "key", std::string("\0value", 6)};
  const std::string bytes = encode(message) + encode({RosterMessage::Kind::goodbye, 3, "", ""});
  std::string buffer;
  std::vector<RosterMessage> got;
  bool bad = false;
  for (const char byte : bytes) {
    buffer.push_back(byte);
    while (auto next = take_message(buffer, bad)) got.push_back(*next);
  }
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].rank, 7u);
  EXPECT_EQ(got[0].key, "key");
  EXPECT_EQ(got[0].value, message.value);
  EXPECT_EQ(got[1].kind, RosterMessage::Kind::goodbye);
  EXPECT_FALSE(bad);
}

TEST(RosterMessage, BytesThatAreNoneAreBad) {
  for (std::string bytes : {std::string("GET / HTTP/1.1"), std::string(64, '\0'), std::string(64, '\xff')}) {
    bool bad = false;
    EXPECT_FALSE(take_message(bytes, bad).has_value());
    EXPECT_TRUE(bad);
  }
  std::string wrong_key = encode({RosterMessage::Kind::set, 0, "key", "value"});
  wrong_key[9] = 100;  // the key would be longer than the message
  bool bad = false;
  EXPECT_FALSE(take_message(wrong_key, bad).has_value());
  EXPECT_TRUE(bad);
}

}  // namespace
}  // namespace mneme::train::roster_test
