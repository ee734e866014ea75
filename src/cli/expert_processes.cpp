#include "cli/expert_processes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "cli/signals.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/thread_pool.h"
#include "mneme/version.h"
#include "model/expert_group.h"
#include "model/expert_server.h"
#include "model/load.h"
#include "parallel/plugin_transport.h"

namespace mneme::cli {
namespace {

/// What must be the same everywhere. Memory packs are not among it: only process 0 reads them.
Peers::Facts facts_of(const ModelOptions& model, const std::string& path) {
  return {{"the version of Mneme", std::string(kVersion)},
          {"the model (its checksum)", checkpoint_hash(path)},
          {"--type", model.type},
          {"--activation", model.activation},
          {"--expert-messages", model.expert_messages}};
}

int serve(const ModelOptions& model, const CommonOptions& common, const std::shared_ptr<ExpertGroup>& group) {
  const std::string path = resolve_model(model.model).string();
  group->peers().agree(facts_of(model, path));
  LoadOptions options = load_options(model, common);
  options.memory.clear();
  options.expert_group = group;
  ExpertServer server(path, options);
  if (!common.quiet)
    fmt::print(stderr, "process {} of {} serves experts, {} resident\n", group->rank(), group->size(),
               human_bytes(static_cast<double>(server.resident_bytes())));
  server.serve();
  return kDone;
}

int lead_others(ModelOptions& model, const std::shared_ptr<ExpertGroup>& group,
                const std::function<int()>& lead) {
  group->peers().agree(facts_of(model, resolve_model(model.model).string()));
  model.expert_group = group;
  const int code = lead();
  group->peers().finish();
  return code;
}

double ratio(uint64_t a, uint64_t b) {
  return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b);
}

}  // namespace

void add_process_options(CLI::App& app, ModelOptions& options) {
  app.add_option(
         "--expert-messages", options.expert_messages,
         "Under mpirun: how rows travel to experts in other processes; auto: the smallest that changes no "
         "result")
      ->check(CLI::IsMember({"auto", "float", "int8", "spike"}))
      ->group("Model");
  app.add_option("--lost-after", options.lost_after,
                 "Under mpirun: a process is lost after so many seconds without a sign of life")
      ->type_name("SECONDS")
      ->check(CLI::Range(2.0, 86400.0).description(""))
      ->group("Model");
}

int with_processes(ModelOptions& model, CommonOptions& common, const std::function<int()>& lead) {
  const auto launched = launched_as();
  if (!launched) return lead();
  if (model.experts != "ram")  // before the minutes that the checksum of a large model takes
    throw UsageError(
        fmt::format("experts that are divided among processes are held in memory; leave out --experts {}",
                    model.experts));
  set_last_words(
      fmt::format("mneme: error: process {} of {} was told to end: mpirun does that when another process "
                  "has ended before its time, and says which\n",
                  launched->rank, launched->size));
  if (common.threads == 0)
    common.threads = std::max(1, available_cores() / static_cast<int>(launched->on_this_machine));
  PeersOptions options;
  options.lost_after = std::chrono::milliseconds(static_cast<int64_t>(model.lost_after * 1000));
  const auto group = std::make_shared<ExpertGroup>(
      std::make_unique<Peers>(open_plugin(find_mpi_plugin(launched->size)), options), model.expert_messages);
  require(group->size() == launched->size && group->rank() == launched->rank, ErrorCode::network,
          "this is process {} of {}, but libmneme_mpi.so sees process {} of {}: it was built for another MPI "
          "than the one that started it",
          launched->rank, launched->size, group->rank(), group->size());
  // When one process has ended, mpirun kills the others: one that is about to say what went wrong says it
  // then.
  const auto give_up = [&](const Error& error) {
    set_last_words(fmt::format("mneme: error: {}\n", one_line(error.what())));
    group->peers().give_up(error);
  };
  try {
    return group->rank() == 0 ? lead_others(model, group, lead) : serve(model, common, group);
  } catch (const Error& error) {
    give_up(error);
    throw;
  } catch (const std::exception& error) {
    give_up(Error(ErrorCode::invalid_argument, error.what()));
    throw;
  }
}

Json process_traffic(const ModelOptions& model) {
  if (model.expert_group == nullptr) return nullptr;
  const ExpertTraffic t = model.expert_group->traffic();
  Json json{{"processes", model.expert_group->size()},
            {"messages", t.coding},
            {"tokens", t.tokens},
            {"sent_bytes_per_token", ratio(t.sent_bytes, t.tokens)},
            {"row_bytes_per_token", ratio(t.row_bytes, t.tokens)},
            {"returned_bytes_per_token", ratio(t.returned_bytes, t.tokens)},
            {"float_bytes_per_token", ratio(t.float_bytes, t.tokens)},
            {"int8_bytes_per_token", ratio(t.int8_bytes, t.tokens)},
            {"of_int8", ratio(t.row_bytes, t.int8_bytes)},
            {"k_over_M", t.experts_share},
            {"processes_reached", ratio(t.row_messages, t.token_layers)},
            {"experts_away", ratio(t.pairs_away, t.pairs)}};
  if (t.counts > 0) {
    json["silent"] = ratio(t.silent, t.counts);
    json["entropy_bits"] = t.entropy_bits / static_cast<double>(t.counts);
    json["coded_bits"] = 8 * ratio(t.count_bytes, t.counts);
  }
  return json;
}

void print_process_traffic(const ModelOptions& model) {
  if (model.expert_group == nullptr) return;
  const ExpertTraffic t = model.expert_group->traffic();
  if (t.row_messages == 0) return;
  const auto a_token = [&](uint64_t bytes) { return human_bytes(ratio(bytes, t.tokens)); };
  fmt::print(stderr,
             "experts in {} processes: a token sent {} of rows as {} ({:.1f} % of int8's {}, {:.1f} % of "
             "float's {}) and {} of addresses; {} came back\n",
             model.expert_group->size(), a_token(t.row_bytes), t.coding,
             100 * ratio(t.row_bytes, t.int8_bytes), a_token(t.int8_bytes),
             100 * ratio(t.row_bytes, t.float_bytes), a_token(t.float_bytes),
             a_token(t.sent_bytes - t.row_bytes), a_token(t.returned_bytes));
  fmt::print(
      stderr,
      "k/M {:.1f} %: in a layer a token went to {:.2f} of {} other processes, with {:.1f} % of its experts\n",
      100 * t.experts_share, ratio(t.row_messages, t.token_layers), model.expert_group->size() - 1,
      100 * ratio(t.pairs_away, t.pairs));
  if (t.counts > 0)
    fmt::print(stderr, "spike counts: {:.1f} % silent, entropy {:.2f} bits, sent in {:.2f} bits a count\n",
               100 * ratio(t.silent, t.counts), t.entropy_bits / static_cast<double>(t.counts),
               8 * ratio(t.count_bytes, t.counts));
}

}  // namespace mneme::cli
