// From a run's config to what is trained: the model with its first weights or those of a checkpoint, its
// tables, the optimisers; and from texts to token sequences.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "train/data/data_order.h"
#include "train/hosts/process_group.h"
#include "train/hosts/table_shards.h"
#include "train/run/run_config.h"
#include "train/run/run_tokenizer.h"
#include "train/run/table_rows.h"
#include "train/run/training.h"

namespace mneme::train {

/// Where the tokenizer comes from: RunConfig::tokenizer, or the model's checkpoint. Throws
/// Error(invalid_argument) if neither is there.
fs::path tokenizer_path(const RunConfig& run);

/// Everything at its start, but for tables that come from a checkpoint (load_tables). New tables hold
/// N(0, 0.02); one without a file name is saved as NAME.engram. Equal seeds give equal values. `tables`
/// false: none are made (make_table_shards does). Throws Error: mismatch (tokenizer and model or table do not
/// fit), invalid_argument (a device that there is not), not_found (a checkpoint without the pack of its
/// table), and what loading a checkpoint throws.
std::unique_ptr<Training> make_training(const RunConfig& run, const RunTokenizer& tokenizer, bool tables);

/// The tables of a run of several processes: each makes its own rows and no others.
std::unique_ptr<TableShards> make_table_shards(const RunConfig& run, const Training& training,
                                               ProcessGroup& group);

/// Reads the rows of tables that come from a checkpoint into `rows`; process 0 does it. Throws
/// Error(mismatch) for the pack of another table or tokenizer, and what Pack::open() throws.
void load_tables(const RunConfig& run, const Training& training, TableRows& rows);

struct RunData {
  std::unique_ptr<DataOrder> train, validation;  // validation may be null
  Json hashes;                                   // what a checkpoint remembers of both, and of the tokenizer
};

/// Opens shards, or makes them of texts under `out`/shards; the first process makes, the others wait.
/// `resumed`: shards that were made of other texts are refused, not made again. Throws Error(mismatch) for
/// shards of another tokenizer or with ids beyond the model's vocabulary, and what reading texts throws.
RunData open_data(const RunConfig& run, const RunTokenizer& tokenizer, uint32_t vocab, const fs::path& out,
                  bool resumed, ProcessGroup& group,
                  const std::function<bool(uint64_t done, uint64_t total)>& progress);

}  // namespace mneme::train
