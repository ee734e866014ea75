// Experts divided among processes (here: threads with a transport of queues): logits equal those of one
// process to the bit, whatever the coding of the messages; messages are counted; and what is broken ends all
// of them.
#include "model/expert_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "engine/tiny_models.h"
#include "model/expert_rows.h"
#include "model/expert_server.h"
#include "parallel/count_coder.h"
#include "parallel/local_transport.h"
#include "scratch.h"

namespace mneme::expert_group_test {
namespace {

/// Threads of one process need not wait long for each other's last words.
std::unique_ptr<Peers> brief(std::unique_ptr<Transport> transport) {
  PeersOptions options;
  options.farewell = std::chrono::milliseconds(200);
  return std::make_unique<Peers>(std::move(transport), options);
}

using ::testing::HasSubstr;

/// What the servers threw, "" for none.
using Said = std::vector<std::string>;

/// Runs `lead` in this thread with a group of `size`, and a server of `path` in a thread for each other
/// process.
template <class Lead>
Said with_servers(uint32_t size, const std::string& path, LoadOptions options, const std::string& coding,
                  const Lead& lead, uint64_t most_answer = ExpertGroup::kMostAnswer) {
  LocalWorld world(size);
  Said said(size);
  std::vector<std::thread> threads;
  options.threads = 1;
  for (uint32_t r = 1; r < size; ++r)
    threads.emplace_back([&, r] {
      LoadOptions mine = options;
      mine.expert_group = std::make_shared<ExpertGroup>(brief(world.transport(r)), coding);
      try {
        ExpertServer(path, mine).serve();
      } catch (const Error& error) {
        said[r] = error.what();
        mine.expert_group->peers().give_up(error);
      }
    });
  const auto group = std::make_shared<ExpertGroup>(brief(world.transport(0)), coding, most_answer);
  LoadOptions leading = options;  // the servers' threads read `options`
  leading.expert_group = group;
  leading.threads = 2;
  try {
    lead(leading, *group);
    group->peers().finish();
  } catch (const Error& error) {
    said[0] = error.what();
    group->peers().give_up(error);
  }
  for (std::thread& thread : threads) thread.join();
  return said;
}

struct Case {
  const char *model, *type, *activation, *coding, *expected;
};

TEST(ExpertGroup, LogitsEqualThoseOfOneProcess) {
  for (const Case& c : {Case{"mixtral", "", "auto", "auto", "float"},
                        {"mixtral", "q8_0", "auto", "auto", "int8"},
                        {"qwen2_moe", "q8_0", "auto", "float", "float"},
                        {"dots1", "q4_0", "spike", "auto", "spike"},
                        {"qwen3_moe", "q8_0", "spike:k=40", "spike", "spike"},
                        {"qwen3_moe", "f32", "spike:dead_zone=0.75", "auto", "spike"},
                        {"qwen3_moe", "f32", "int8", "auto", "int8"},
                        {"qwen3_moe", "q8_0", "spike:gate=int8", "auto", "float"},
                        {"olmoe", "q8_0", "int8:down=spike", "int8", "int8"},
                        {"dots1", "q8_0", "spike", "auto", "spike"},
                        {"mixers/moe_adaptive", "", "float", "auto", "float"},
                        {"mixers/moe_sigmoid", "", "float", "auto", "float"}}) {
    const Golden golden = load_golden(c.model);
    LoadOptions options;
    options.type = c.type;
    options.activation = ActivationPolicy::parse(c.activation);
    const auto alone = load_tiny(c.model, options);
    for (const uint32_t size : {2u, 3u}) {
      const Said said = with_servers(
          size, tiny_model_path(c.model), options, c.coding, [&](const LoadOptions& own, ExpertGroup& group) {
            const auto model = Model::load(tiny_model_path(c.model), own);
            for (const uint32_t chunk : {1u, 7u, 512u})
              EXPECT_EQ(all_logits(model, golden, chunk), all_logits(alone, golden, chunk))
                  << c.model << " " << c.coding << " " << size << " " << chunk;
            const ExpertTraffic traffic = group.traffic();
            EXPECT_EQ(traffic.coding, c.expected);
            EXPECT_GE(traffic.tokens, 3 * golden.ids.size());  // and sink tokens
            EXPECT_GT(traffic.pairs_away, 0u);
            EXPECT_LT(traffic.pairs_away, traffic.pairs);
            EXPECT_LE(traffic.row_messages, traffic.pairs_away);
            EXPECT_EQ(traffic.returned_bytes, traffic.pairs_away * model->config().d_model * sizeof(float));
            if (traffic.coding == "float") {
              EXPECT_EQ(traffic.row_bytes, traffic.float_bytes);
            } else if (traffic.coding == "int8") {
              EXPECT_EQ(traffic.row_bytes, traffic.int8_bytes);
            } else {
              // short rows, whose tables weigh much, and with k = 40 counts beyond int8
              EXPECT_LT(traffic.row_bytes, traffic.float_bytes / 2);
            }
          });
      EXPECT_THAT(said, ::testing::Each("")) << c.model;
    }
  }
}

// What a chunk asks of a process may be more than a message holds.
TEST(ExpertGroup, LongAnswersComeInParts) {
  const Golden golden = load_golden("mixtral");
  LoadOptions options;
  options.type = "q8_0";
  options.activation = ActivationPolicy::parse("spike");
  const auto alone = load_tiny("mixtral", options);
  std::vector<ExpertTraffic> traffic;
  // Two experts a row of 32 floats are 256 bytes: all rows at once, three at a time, one by one.
  for (const uint64_t most : {ExpertGroup::kMostAnswer, uint64_t{3 * 256}, uint64_t{1}}) {
    const Said said = with_servers(
        2, tiny_model_path("mixtral"), options, "float",
        [&](const LoadOptions& own, ExpertGroup& group) {
          const auto model = Model::load(tiny_model_path("mixtral"), own);
          EXPECT_EQ(all_logits(model, golden, 512), all_logits(alone, golden, 512)) << most;
          traffic.push_back(group.traffic());
        },
        most);
    EXPECT_THAT(said, ::testing::Each("")) << most;
  }
  ASSERT_EQ(traffic.size(), 3u);
  EXPECT_LT(traffic[0].sent_bytes, traffic[1].sent_bytes);  // heads of more messages
  EXPECT_LT(traffic[1].sent_bytes, traffic[2].sent_bytes);
  for (const ExpertTraffic& t : traffic) {
    EXPECT_EQ(t.row_bytes, traffic[0].row_bytes);
    EXPECT_EQ(t.row_messages, traffic[0].row_messages);
    EXPECT_EQ(t.pairs_away, traffic[0].pairs_away);
    EXPECT_EQ(t.returned_bytes, traffic[0].returned_bytes);
  }
}

// Gate and up of layer 0 have a neuron each, those of layer 1 one together, layer 2 none: only the neurons of
// a layer travel.
TEST(ExpertGroup, LayersWithTwoNeuronsAndWithOne) {
  const ScratchFolder folder;
  Json config = parse_json(read_text_file(tiny_model_path("mixers/moe_adaptive") + "/config.json"), "config");
  const Json spikes{{"type", "spike"}, {"k", 2.0}}, more{{"type", "spike"}, {"k", 30.0}};
  Json& layers = config.at("mneme_config").at("layers");
  layers.at(0)["activation"] = {{"gate", spikes}, {"up", more}};
  layers.at(1)["activation"] = {{"gate", spikes}, {"up", spikes}};
  folder.write("config.json", config.dump());
  fs::copy_file(tiny_model_path("mixers/moe_adaptive") + "/model.safetensors", folder / "model.safetensors");
  const Golden golden = load_golden("mixers/moe_adaptive");
  for (const bool quantized : {false, true}) {
    const std::string coding = quantized ? "int8, spike" : "float, spike";
    LoadOptions options;
    if (quantized) options.type = "q8_0";
    options.threads = 2;
    const auto alone = Model::load(folder.path().string(), options);
    for (const uint32_t size : {2u, 3u}) {
      const Said said = with_servers(
          size, folder.path().string(), options, "auto", [&](const LoadOptions& own, ExpertGroup& group) {
            const auto model = Model::load(folder.path().string(), own);
            for (const uint32_t chunk : {1u, 512u})
              EXPECT_EQ(all_logits(model, golden, chunk), all_logits(alone, golden, chunk))
                  << coding << " " << size << " " << chunk;
            EXPECT_EQ(group.traffic().coding, coding);
          });
      EXPECT_THAT(said, ::testing::Each("")) << coding << " " << size;
    }
  }
}

TEST(ExpertGroup, ServersHoldTheirExpertsOnly) {
  LoadOptions options;
  options.type = "q8_0";
  const auto whole = load_tiny("qwen3_moe", options);
  uint64_t experts = 0, lead_bytes = 0, served = 0;
  for (const TensorDescription& t : whole->tensors())
    if (t.name.find("_exps.") != std::string::npos) experts += t.bytes;
  const Said said = with_servers(
      2, tiny_model_path("qwen3_moe"), options, "auto", [&](const LoadOptions& own, ExpertGroup&) {
        lead_bytes = Model::load(tiny_model_path("qwen3_moe"), own)->bytes().resident;
      });
  EXPECT_EQ(said[1], "");
  LocalWorld world(2);
  options.expert_group = std::make_shared<ExpertGroup>(brief(world.transport(1)), "auto");
  served = ExpertServer(tiny_model_path("qwen3_moe"), options).resident_bytes();
  options.expert_group.reset();  // before the world that it talks to
  EXPECT_GT(served, 0u);
  EXPECT_LE(served, experts);  // half of the experts, with tiles filled up
  EXPECT_EQ(lead_bytes + served, whole->bytes().resident);
}

TEST(ExpertGroup, CodingsThatWouldChangeTheTextAreRefused) {
  for (const auto& [activation, coding, says] : {std::tuple("float", "int8", "read floats"),
                                                 {"int8", "spike", "read int8 codes"},
                                                 {"spike", "int8", "read spikes"}}) {
    LoadOptions options;
    options.type = "q8_0";
    options.activation = ActivationPolicy::parse(activation);
    const Said said = with_servers(
        2, tiny_model_path("mixtral"), options, coding,
        [&](const LoadOptions& own, ExpertGroup&) { Model::load(tiny_model_path("mixtral"), own); });
    EXPECT_THAT(said[0], HasSubstr(says));
    EXPECT_THAT(said[1], HasSubstr("process 0 of 2 gave up: --expert-messages"));
  }
}

TEST(ExpertGroup, TooManyProcessesAndDenseModelsAreRefused) {
  const Said many = with_servers(
      5, tiny_model_path("mixtral"), {}, "auto",
      [&](const LoadOptions& own, ExpertGroup&) { Model::load(tiny_model_path("mixtral"), own); });
  for (const std::string& said : many)
    EXPECT_THAT(said, HasSubstr("experts cannot be divided among 5 processes"));
  const Said dense =
      with_servers(2, tiny_model_path("llama"), {}, "auto",
                   [&](const LoadOptions& own, ExpertGroup&) { Model::load(tiny_model_path("llama"), own); });
  for (const std::string& said : dense) EXPECT_THAT(said, HasSubstr("has no experts"));
}

TEST(ExpertGroup, RequestsThatMakeNoSenseEndTheServer) {
  std::vector<MessageBytes> bad;
  for (const std::vector<uint8_t>& bytes :
       std::initializer_list<std::vector<uint8_t>>{{},
                                                   {0xff},
                                                   {99},
                                                   {0, 7},
                                                   {0, 0, 1, 9},
                                                   {0, 0, 1, 1, 0},
                                                   {0, 0, 1, 2, 1, 1},
                                                   {0, 1, 1, 1, 0},
                                                   {0, 2, 1, 1, 0},
                                                   {0, 0, 0xff, 0xff, 0xff, 0x7f},
                                                   {0, 0, 0, 1}}) {
    MessageBytes& one = bad.emplace_back();
    for (const uint8_t byte : bytes) one.push_back(static_cast<std::byte>(byte));
  }
  for (const MessageBytes& bytes : bad) {
    const Said said =
        with_servers(2, tiny_model_path("mixtral"), {}, "auto", [&](const LoadOptions&, ExpertGroup& group) {
          group.peers().send(1, bytes);
          group.peers().receive();
        });
    EXPECT_THAT(said[1], HasSubstr("a request of process 0"));
    EXPECT_THAT(said[0], HasSubstr("process 1 of 2 gave up: a request of process 0"));
  }
}

TEST(ExpertGroup, ALostServerEndsThePass) {
  LocalWorld world(2);
  PeersOptions quick;
  quick.lost_after = std::chrono::milliseconds(1000);
  quick.farewell = std::chrono::milliseconds(100);
  LoadOptions options;
  options.threads = 1;
  options.expert_group =
      std::make_shared<ExpertGroup>(std::make_unique<Peers>(world.transport(0), quick), "auto");
  const auto model = load_tiny("mixtral", options);
  Session session(model);
  const std::vector<TokenId> ids{1, 2, 3, 4, 5, 6, 7, 8};
  try {
    session.append(ids);
    FAIL() << "nobody served";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::network);
    EXPECT_THAT(error.what(), HasSubstr("process 1 of 2 was lost"));
  }
  EXPECT_EQ(session.position(), 0u);
}

TEST(ExpertGroup, DividesExpertsInOrder) {
  for (const uint32_t experts : {1u, 8u, 13u, 64u})
    for (uint32_t processes = 1; processes <= experts; ++processes) {
      uint32_t next = 0;
      for (uint32_t r = 0; r < processes; ++r) {
        const ExpertRange range = experts_of(r, processes, experts);
        EXPECT_EQ(range.first, next);
        EXPECT_GE(range.count(), experts / processes);
        EXPECT_LE(range.count(), (experts + processes - 1) / processes);
        next = range.last;
      }
      EXPECT_EQ(next, experts);
    }
}

TEST(CountTally, HasTheEntropyOfWhatItSaw) {
  CountTally tally, other;
  const std::vector<int32_t> counts{0, 0, 0, 0, 1, 1, -1, -1};
  tally.add(counts, 3);
  other.add(counts, 4);
  tally.add(other);
  EXPECT_EQ(tally.counts(), 16u);
  EXPECT_EQ(tally.silent(), 8u);
  EXPECT_EQ(tally.bytes(), 7u);
  EXPECT_DOUBLE_EQ(tally.entropy_bits(), 16 * 1.5);
}

}  // namespace
}  // namespace mneme::expert_group_test
