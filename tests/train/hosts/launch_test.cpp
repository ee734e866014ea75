// Which process of a run this is, from options and environments; and what contradicts itself.
#include "train/hosts/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "mneme/error.h"

namespace mneme::train::launch_test {
namespace {

using ::testing::HasSubstr;

Environment of(std::map<std::string, std::string> variables) {
  return [variables](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
}

LaunchOptions hosts(std::vector<std::string> names, std::optional<uint32_t> rank) {
  LaunchOptions options;
  options.hosts = std::move(names);
  options.rank = rank;
  return options;
}

void expect_refused(const LaunchOptions& options, const Environment& environment, const std::string& words) {
  try {
    find_place(options, environment);
    ADD_FAILURE() << "not refused: " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_THAT(error.what(), HasSubstr(words));
  }
}

TEST(FindPlace, WithoutAnythingThereIsOneProcess) {
  const Place place = find_place({}, of({}));
  EXPECT_EQ(place.size, 1u);
  EXPECT_EQ(find_place({}, of({{"RANK", "0"}, {"WORLD_SIZE", "1"}})).size, 1u);
  EXPECT_EQ(find_place({}, of({{"RANK", "3"}})).size, 1u);  // some other program's
}

TEST(FindPlace, ProcessesAreStartedByTheFirst) {
  LaunchOptions options;
  options.processes = 3;
  const Place place = find_place(options, of({{"RANK", "1"}, {"WORLD_SIZE", "2"}}));  // options come first
  EXPECT_TRUE(place.starts_others);
  EXPECT_EQ(place.rank, 0u);
  EXPECT_EQ(place.size, 3u);
  EXPECT_EQ(place.on_this_machine, 3u);
  EXPECT_EQ(place.meeting_host, "127.0.0.1");
}

TEST(FindPlace, HostsMeetAtTheFirst) {
  LaunchOptions options = hosts({"a", "b", "b"}, 2);
  options.port = 4000;
  const Place place = find_place(options, of({}));
  EXPECT_EQ(place.rank, 2u);
  EXPECT_EQ(place.size, 3u);
  EXPECT_EQ(place.on_this_machine, 2u);
  EXPECT_EQ(place.meeting_host, "a");
  EXPECT_EQ(place.own_host, "b");
  EXPECT_EQ(place.port, 4000);
}

TEST(FindPlace, EnvironmentsOfLaunchers) {
  const Place torch =
      find_place({}, of({{"RANK", "2"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "h"}, {"MASTER_PORT", "7"}}));
  EXPECT_EQ(torch.rank, 2u);
  EXPECT_EQ(torch.size, 4u);
  EXPECT_EQ(torch.meeting_host, "h");
  EXPECT_EQ(torch.port, 7);
  EXPECT_FALSE(torch.starts_others);
  const Place mpi = find_place({}, of({{"OMPI_COMM_WORLD_RANK", "1"},
                                       {"OMPI_COMM_WORLD_SIZE", "2"},
                                       {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}));
  EXPECT_EQ(mpi.rank, 1u);
  EXPECT_EQ(mpi.meeting_host, "127.0.0.1");
  EXPECT_EQ(mpi.on_this_machine, 2u);
  EXPECT_EQ(mpi.port, 29500);
}

TEST(FindPlace, ContradictionsAreNamed) {
  LaunchOptions options = hosts({"a", "b"}, 0);
  options.processes = 2;
  expect_refused(options, of({}), "give one of them");
  expect_refused(hosts({"a", "b"}, std::nullopt), of({}), "--hosts needs --rank: 0 on the first host to 1");
  expect_refused(hosts({"a", "b"}, 2), of({}), "there is no process 2 among 2");
  expect_refused(hosts({"a", ""}, 0), of({}), "\"\" in --hosts is no host");
  expect_refused(hosts({"a", "b c"}, 0), of({}), "\"b c\" in --hosts is no host");
  expect_refused(hosts({}, 1), of({}), "give --hosts");
  options = {};
  options.processes = 0;
  expect_refused(options, of({}), "--processes 0");
  options.processes = 100000;
  expect_refused(options, of({}), "1 to 1024");
  options = hosts({"a", "b"}, 0);
  options.port = 0;
  expect_refused(options, of({}), "--port 0");
}

TEST(FindPlace, BadEnvironmentsAreNamed) {
  expect_refused({}, of({{"WORLD_SIZE", "2"}}), "WORLD_SIZE is set, but RANK is not");
  expect_refused({}, of({{"WORLD_SIZE", "two"}, {"RANK", "0"}}), "WORLD_SIZE is \"two\"");
  expect_refused({}, of({{"WORLD_SIZE", "2"}, {"RANK", "-1"}}), "RANK is \"-1\"");
  expect_refused({}, of({{"WORLD_SIZE", "2"}, {"RANK", "2"}}), "there is no process 2 among 2");
  expect_refused({}, of({{"WORLD_SIZE", "2"}, {"RANK", "0"}}), "set MASTER_ADDR");
  expect_refused({}, of({{"WORLD_SIZE", "2"}, {"RANK", "0"}, {"MASTER_ADDR", "h"}, {"MASTER_PORT", "70000"}}),
                 "MASTER_PORT is \"70000\"");
}

TEST(Launch, OneProcessHasAllThreadsAndAGroupOfOne) {
  Launch launch({}, {"program"}, of({}));
  EXPECT_EQ(launch.threads(3), 3u);
  EXPECT_GE(launch.threads(0), 1u);
  EXPECT_EQ(launch.join("a run")->size(), 1u);
}

}  // namespace
}  // namespace mneme::train::launch_test
