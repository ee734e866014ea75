// `mneme sessions`: what --session-store keeps: list it, delete some or all of it.
#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "cli/session_file.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "engine/session_impl.h"

namespace mneme::cli::sessions_verb {
namespace {

struct Options {
  CommonOptions common;
  KeepFlags keep;
  std::string what = "list";
  std::vector<std::string> names;
};

std::string name_of(const StoredSession& entry) {
  return entry.path.stem().string();
}

// Seconds since the epoch, whatever the file system's clock counts from.
int64_t seconds_of(std::filesystem::file_time_type time) {
  const auto age = std::filesystem::file_time_type::clock::now() - time;
  const auto then = std::chrono::system_clock::now() - std::chrono::duration_cast<std::chrono::seconds>(age);
  return std::chrono::duration_cast<std::chrono::seconds>(then.time_since_epoch()).count();
}

int list(const Options& options, const SessionStore& store) {
  const auto entries = store.list();
  if (options.common.json) {
    Json array = Json::array();
    for (const StoredSession& entry : entries)
      array.push_back({{"name", name_of(entry)},
                       {"path", entry.path.string()},
                       {"tokens", entry.info.position},
                       {"bytes", entry.info.bytes},
                       {"model_hash", entry.info.model_hash},
                       {"kv", kv_name(entry.info.kv)},
                       {"used", seconds_of(entry.used)}});
    print_json(array);
    return kDone;
  }
  std::vector<std::vector<std::string>> rows{{"name", "tokens", "size", "kv", "model"}};
  for (const StoredSession& entry : entries)
    rows.push_back({name_of(entry), std::to_string(entry.info.position),
                    human_bytes(static_cast<double>(entry.info.bytes)), std::string(kv_name(entry.info.kv)),
                    entry.info.model_hash.substr(0, 12)});
  if (!entries.empty())
    print(table(rows));
  else if (!options.common.quiet)
    fmt::print(stderr, "nothing is kept in {}\n", store.folder().string());
  return kDone;
}

int finish(const Options& options, uint64_t count, uint64_t bytes) {
  if (options.common.json)
    print_json({{"removed", count}, {"bytes", bytes}});
  else if (!options.common.quiet)
    fmt::print(stderr, "removed {} ({})\n", count, human_bytes(static_cast<double>(bytes)));
  return kDone;
}

int remove(const Options& options, SessionStore& store) {
  if (options.names.empty())
    throw UsageError("rm needs the names of sessions, as `mneme sessions list` shows them");
  const auto entries = store.list();
  std::vector<const StoredSession*> chosen;
  for (const std::string& name : options.names) {
    const StoredSession* found = nullptr;
    for (const StoredSession& entry : entries) {
      if (!name_of(entry).starts_with(name) || name.empty()) continue;
      require(found == nullptr, ErrorCode::invalid_argument, "\"{}\" begins the names of several sessions",
              name);
      found = &entry;
    }
    require(found != nullptr, ErrorCode::not_found, "no session \"{}\" is kept in {}", name,
            store.folder().string());
    chosen.push_back(found);
  }
  uint64_t bytes = 0;
  for (const StoredSession* entry : chosen) bytes += store.remove(*entry);
  return finish(options, chosen.size(), bytes);
}

int run(const Options& options) {
  SessionStore store = open_store(options.keep);
  if (options.what != "rm" && !options.names.empty())
    throw UsageError(fmt::format("unexpected argument \"{}\"", options.names.front()));
  if (options.what == "list") return list(options, store);
  if (options.what == "rm") return remove(options, store);
  const uint64_t count = store.list().size();
  return finish(options, count, store.clear());
}

const VerbRegistration registration(
    {.name = "sessions",
     .summary = "List or delete what --session-store has kept",
     .group = Group::models,
     .examples = {{"mneme sessions", "what is kept, the most recently used first"},
                  {"mneme sessions rm 3fa9c1", "one of them, by the beginning of its name"},
                  {"mneme sessions clear", "all of them"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("what", options->what, "What to do")
           ->type_name("WHAT")
           ->check(CLI::IsMember({"list", "rm", "clear"}));
       app.add_option("name", options->names, "Names, or how they begin")->type_name("NAME");
       add_store_options(app, options->keep);
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::sessions_verb
