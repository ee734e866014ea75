// `mneme memory overlay`: a sparse file of changed rows for a pack, which stays as it is. Rows come as JSON
// lines,
// {"row": 123, "values": [...]}; the row is the table's 64-bit number.
#include <fmt/format.h>

#include <memory>
#include <sstream>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/json_fields.h"
#include "memory/pack.h"
#include "mneme/memory.h"
#include "simd/rows.h"

namespace mneme::cli::memory_overlay_verb {
namespace {

struct Options {
  CommonOptions common;
  std::string pack, out, rows;
};

int run(const Options& options) {
  const auto pack = Pack::open(options.pack);
  const EngramTableConfig& table = pack->description().table;
  std::vector<uint64_t> ids;
  std::vector<std::byte> records;
  std::istringstream lines(text_argument("@" + options.rows));
  size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}: line {}", options.rows, number);
    const Json json = parse_json(line, where);
    JsonFields fields(json, where, ErrorCode::invalid_argument);
    ids.push_back(fields.u64("row", 0, pack->row_count() - 1));
    const std::vector<double> values = fields.numbers("values", -1e38, 1e38, table.head_dim);
    fields.finish();
    require(values.size() == table.head_dim, ErrorCode::invalid_argument, "{}: {} values; a row has {}",
            where, values.size(), table.head_dim);
    const std::vector<float> row(values.begin(), values.end());
    records.resize(records.size() + pack->row_bytes());
    encode_row(table.format, row.data(), table.head_dim, records.data() + records.size() - pack->row_bytes());
  }
  write_overlay(options.out, pack->rows(), ids, records);
  if (options.common.json)
    print_json({{"rows", ids.size()}, {"base", pack->fingerprint()}});
  else
    print(fmt::format("{}: {} rows over {}\n", options.out, ids.size(), options.pack));
  return kDone;
}

const VerbRegistration registration(
    {.name = "overlay",
     .summary = "Write a sparse file of changed rows over a memory pack",
     .group = Group::models,
     .examples = {{"mneme memory overlay facts.engram edit.overlay --rows edit.jsonl",
                   "the pack is not touched"}},
     .parent = "memory",
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("pack", options->pack, "Memory pack (.engram)")->required()->type_name("PACK");
       app.add_option("out", options->out, "Overlay to write")->required()->type_name("OUT");
       app.add_option("--rows", options->rows, "JSON lines {\"row\": N, \"values\": [...]}, or - for stdin")
           ->required()
           ->type_name("FILE");
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::memory_overlay_verb
