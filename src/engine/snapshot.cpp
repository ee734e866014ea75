// Snapshots in memory and on disk. File, little-endian:
//
//   "MNEMSNAP" | u32 version = 4 | u32 header bytes | header (JSON) | token ids i32[] | logits f32[] | blocks
//   | convolution rows f32[] | recurrent states f32[] | checksum
//
// Versions 1 and 2, which are still read, have no recurrent states, version 1 no convolution rows either.
// The header names the model hash, KV type, rollback reach, position, and for every group of layers the size
// of a block and which blocks follow; and "note", a text of the application. Recurrent states: the current
// one, the checkpoints, the blocks of the log; the header gives their sizes and positions. The checksum
// covers everything before it: XXH3 as 16 hexadecimal digits, which keeps up with the memory, where up to
// version 3 there were the 64 of SHA-256.
#include <algorithm>
#include <cstring>

#include "core/checked.h"
#include "core/checksum.h"
#include "core/half.h"
#include "core/json.h"
#include "core/sha256.h"
#include "engine/session_impl.h"

namespace mneme {
namespace {

constexpr std::string_view kMagic = "MNEMSNAP";
constexpr uint32_t kVersion = 4, kOldestVersion = 1;
constexpr uint64_t kPrefix = 16;
constexpr size_t kMostStates = (1u << 20) / RecurrentLayout::kInterval + 2;  // of the longest rollback reach
constexpr std::string_view kKvNames[] = {"f16", "int8", "f32"};

class Reader {
 public:
  Reader(Bytes bytes, const std::string& name) : bytes_(bytes), name_(name) {}
  Bytes take(uint64_t n, const char* what) {
    require(n <= bytes_.size() - at_, ErrorCode::corrupt,
            "snapshot {} ends inside its {}: {} bytes needed, {} left", name_, what, n, bytes_.size() - at_);
    at_ += n;
    return bytes_.subspan(at_ - n, n);
  }
  uint64_t left() const { return bytes_.size() - at_; }

 private:
  Bytes bytes_;
  uint64_t at_ = 0;
  const std::string& name_;
};

std::string_view text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// memcpy must not see the null pointer of an empty vector.
void copy_bytes(Bytes from, void* to) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
}

template <class T>
T field(const Json& header, const char* key, const std::string& name) {
  try {
    return header.at(key).get<T>();
  } catch (const Json::exception&) {
    fail(ErrorCode::corrupt, "snapshot {}: header field \"{}\" is missing or of the wrong type", name, key);
  }
}

uint64_t natural(const Json& header, const char* key, uint64_t most, const std::string& name) {
  const auto it = header.find(key);
  require(it != header.end() && it->is_number_unsigned() && it->get<uint64_t>() <= most, ErrorCode::corrupt,
          "snapshot {}: header field \"{}\" must be a whole number up to {}", name, key, most);
  return it->get<uint64_t>();
}

Json make_header(const Snapshot::Data& data) {
  Json groups = Json::array();
  for (const auto& group : data.blocks) {
    Json present = Json::array();
    uint64_t bytes = 0;
    for (const auto& block : group) {
      present.push_back(block ? 1 : 0);
      if (block) bytes = block->size();
    }
    groups.push_back({{"block_bytes", bytes}, {"present", present}});
  }
  Json convs = Json::array();
  for (const auto& rows : data.convs) convs.push_back(rows.size());
  const RecurrentStates::Contents& states = data.recurrent;
  const auto positions = [](const auto& list) {
    Json out = Json::array();
    for (const auto& placed : list) out.push_back(placed.first);
    return out;
  };
  const Json recurrent = {{"state_bytes", states.current ? states.current->size() : 0},
                          {"log_bytes", states.log.empty() ? 0 : states.log[0].second->size()},
                          {"checkpoints", positions(states.checkpoints)},
                          {"log", positions(states.log)}};
  return {{"model_hash", data.model_hash},
          {"kv", kKvNames[static_cast<size_t>(data.kv)]},
          {"max_rollback", data.max_rollback},
          {"position", data.position},
          {"low_water", data.low_water},
          {"note", data.note},
          {"logits", data.logits.size()},
          {"groups", groups},
          {"convs", convs},
          {"recurrent", recurrent}};
}

// What is written after the convolutions, in order.
std::vector<RecurrentStates::Block> recurrent_blocks(const RecurrentStates::Contents& states) {
  std::vector<RecurrentStates::Block> out;
  if (states.current) out.push_back(states.current);
  for (const auto* list : {&states.checkpoints, &states.log})
    for (const auto& placed : *list) out.push_back(placed.second);
  return out;
}

void read_recurrent(const Json& header, Reader& reader, const std::string& name, Snapshot::Data& data) {
  const auto recurrent = field<Json>(header, "recurrent", name);
  const uint64_t state_bytes = natural(recurrent, "state_bytes", uint64_t{1} << 40, name);
  const uint64_t log_bytes = natural(recurrent, "log_bytes", uint64_t{1} << 40, name);
  const auto read = [&](uint64_t bytes) {
    const Bytes content = reader.take(bytes, "recurrent states");
    auto block = std::make_shared<HugeBuffer>(bytes);
    copy_bytes(content, block->data());
    return block;
  };
  const auto read_list = [&](const char* key, uint64_t bytes, std::vector<RecurrentStates::Placed>& list) {
    const auto positions = field<std::vector<int64_t>>(recurrent, key, name);
    require(positions.size() <= kMostStates && (bytes > 0 || positions.empty()), ErrorCode::corrupt,
            "snapshot {}: {} entries of {} bytes in \"{}\"", name, positions.size(), bytes, key);
    for (const int64_t at : positions) {
      list.emplace_back(at, read(bytes));
    }
  };
  if (state_bytes > 0) data.recurrent.current = read(state_bytes);
  read_list("checkpoints", state_bytes, data.recurrent.checkpoints);
  read_list("log", log_bytes, data.recurrent.log);
}

void read_convs(const Json& header, Reader& reader, const std::string& name, Snapshot::Data& data) {
  const auto sizes = field<Json>(header, "convs", name);
  require(sizes.is_array() && sizes.size() <= 4096, ErrorCode::corrupt, "snapshot {}: bad \"convs\"", name);
  for (const Json& size : sizes) {
    require(size.is_number_unsigned() && size.get<uint64_t>() <= uint64_t{1} << 40, ErrorCode::corrupt,
            "snapshot {}: bad size in \"convs\"", name);
    const Bytes content = reader.take(size.get<uint64_t>() * sizeof(float), "convolution rows");
    auto& rows = data.convs.emplace_back(size.get<uint64_t>());
    copy_bytes(content, rows.data());
  }
}

void read_blocks(const Json& header, Reader& reader, const std::string& name, Snapshot::Data& data) {
  const auto groups = field<Json>(header, "groups", name);
  require(groups.is_array() && groups.size() <= 4096, ErrorCode::corrupt, "snapshot {}: bad \"groups\"",
          name);
  for (const Json& group : groups) {
    const uint64_t block_bytes = natural(group, "block_bytes", uint64_t{1} << 40, name);
    const auto present = field<std::vector<uint8_t>>(group, "present", name);
    auto& blocks = data.blocks.emplace_back();
    for (const uint8_t there : present) {
      blocks.emplace_back();
      if (there == 0) continue;
      const Bytes content = reader.take(block_bytes, "cache blocks");
      blocks.back() = std::make_shared<HugeBuffer>(block_bytes);
      copy_bytes(content, blocks.back()->data());
    }
  }
}

}  // namespace

std::shared_ptr<const Snapshot::Data> parse_snapshot(Bytes bytes, const std::string& name) {
  require(bytes.size() >= kPrefix + 64 && text(bytes.first(8)) == kMagic, ErrorCode::corrupt,
          "{} is not a Mneme snapshot", name);
  const auto version = load_le<uint32_t>(bytes.data() + 8);
  require(version >= kOldestVersion && version <= kVersion, ErrorCode::unsupported,
          "snapshot {} has version {}; this program reads versions {} to {}", name, version, kOldestVersion,
          kVersion);
  const uint64_t checksum = version >= 4 ? 16 : 64;
  const Bytes body = bytes.first(bytes.size() - checksum);
  require((version >= 4 ? Xxh3().update(body).hex() : sha256_hex(body)) == text(bytes.last(checksum)),
          ErrorCode::corrupt, "snapshot {} is damaged: its checksum does not match; make it again", name);
  Reader reader(body, name);
  reader.take(kPrefix, "prefix");
  const Json header =
      parse_json(text(reader.take(load_le<uint32_t>(bytes.data() + 12), "header")), "snapshot header", 8);
  auto data = std::make_shared<Snapshot::Data>();
  data->model_hash = field<std::string>(header, "model_hash", name);
  const auto kv = field<std::string>(header, "kv", name);
  const auto kind = kv_type_from(kv);
  require(kind.has_value(), ErrorCode::corrupt, "snapshot {}: unknown KV type \"{}\"", name, kv);
  data->kv = *kind;
  if (header.contains("note")) data->note = field<std::string>(header, "note", name);
  data->max_rollback = static_cast<uint32_t>(natural(header, "max_rollback", 1u << 20, name));
  data->position = static_cast<int64_t>(natural(header, "position", uint64_t{1} << 40, name));
  data->low_water =
      static_cast<int64_t>(natural(header, "low_water", static_cast<uint64_t>(data->position), name));
  const Bytes tokens =
      reader.take(checked_mul(static_cast<uint64_t>(data->position), sizeof(TokenId), "tokens"), "tokens");
  data->tokens.resize(static_cast<size_t>(data->position));
  copy_bytes(tokens, data->tokens.data());
  const uint64_t logits = natural(header, "logits", uint64_t{1} << 32, name);
  const Bytes values = reader.take(logits * sizeof(float), "logits");
  data->logits.resize(logits);
  copy_bytes(values, data->logits.data());
  read_blocks(header, reader, name, *data);
  if (version >= 2) read_convs(header, reader, name, *data);
  if (version >= 3) read_recurrent(header, reader, name, *data);
  require(reader.left() == 0, ErrorCode::corrupt, "snapshot {} has {} bytes too many", name, reader.left());
  return data;
}

std::optional<KvType> kv_type_from(std::string_view name) noexcept {
  const auto* kind = std::find(std::begin(kKvNames), std::end(kKvNames), name);
  if (kind == std::end(kKvNames)) return std::nullopt;
  return static_cast<KvType>(kind - std::begin(kKvNames));
}

const std::string& Snapshot::note() const {
  return data_->note;
}

Snapshot Snapshot::with_note(std::string note) const {
  auto data = std::make_shared<Data>(*data_);
  data->note = std::move(note);
  return Snapshot(std::move(data));
}

uint64_t Snapshot::position() const {
  return static_cast<uint64_t>(data_->position);
}
const std::vector<TokenId>& Snapshot::tokens() const {
  return data_->tokens;
}

void Snapshot::save(const std::filesystem::path& path) const {
  Data named = *data_;
  if (named.model_hash.empty()) named.model_hash = named.model->hash();
  const std::string header = make_header(named).dump(-1, ' ', false, Json::error_handler_t::replace);
  AtomicFile file(path);
  Xxh3 checksum;
  const auto write = [&](Bytes bytes) {
    file.write(bytes);
    checksum.update(bytes);
  };
  const uint32_t numbers[] = {kVersion, static_cast<uint32_t>(header.size())};
  write(std::as_bytes(std::span(kMagic)));
  write(std::as_bytes(std::span(numbers)));
  write(std::as_bytes(std::span(header)));
  write(std::as_bytes(std::span(named.tokens)));
  write(std::as_bytes(std::span(named.logits)));
  for (const auto& group : named.blocks)
    for (const auto& block : group)
      if (block) write({block->data(), block->size()});
  for (const auto& rows : named.convs) write(std::as_bytes(std::span(rows)));
  for (const auto& block : recurrent_blocks(named.recurrent)) write({block->data(), block->size()});
  file.write(checksum.hex());
  file.commit();
}

Snapshot Snapshot::load(const std::filesystem::path& path) {
  const MappedFile file(path, LoadMode::read);
  return Snapshot(parse_snapshot(file.bytes(), path.string()));
}

Snapshot Session::snapshot() const {
  auto data = std::make_shared<Snapshot::Data>();
  data->model = impl_->model;
  data->kv = impl_->options.kv;
  data->max_rollback = impl_->options.max_rollback;
  const int64_t sinks = impl_->state.layout().sink_tokens;
  data->position = impl_->state.position() - sinks;
  data->low_water = std::max<int64_t>(0, impl_->state.low_water() - sinks);
  data->tokens = impl_->tokens;
  const auto row = logits();
  data->logits.assign(row.begin(), row.end());
  data->blocks = impl_->state.blocks();
  data->convs = impl_->state.convs();
  data->recurrent = impl_->state.recurrent().contents();
  return Snapshot(std::move(data));
}

void Session::restore(const Snapshot& snapshot) {
  const Snapshot::Data& data = snapshot.data();
  SessionImpl& s = *impl_;
  if (data.model != s.model) {
    const std::string& hash = data.model_hash.empty() ? data.model->hash() : data.model_hash;
    require(hash == s.model->hash(), ErrorCode::mismatch,
            "the snapshot was made with another model (hash {}…, this one is {}…)", hash.substr(0, 12),
            s.model->hash().substr(0, 12));
  }
  require(data.kv == s.options.kv, ErrorCode::mismatch,
          "the snapshot holds {} keys and values, the session {}", kKvNames[static_cast<size_t>(data.kv)],
          kKvNames[static_cast<size_t>(s.options.kv)]);
  require(data.max_rollback == s.options.max_rollback, ErrorCode::mismatch,
          "the snapshot keeps {} tokens for rollback, the session {}", data.max_rollback,
          s.options.max_rollback);
  require(s.options.max_context == 0 || data.position <= int64_t{s.options.max_context}, ErrorCode::limit,
          "the snapshot holds {} tokens, the context {}", data.position, s.options.max_context);
  const auto& groups = s.state.layout().groups;
  const int64_t sinks = s.state.layout().sink_tokens;  // before the snapshot's first position
  const auto blocks = static_cast<size_t>((sinks + data.position + kPagePositions - 1) / kPagePositions);
  require(data.blocks.size() == groups.size() && (data.logits.empty() || data.logits.size() == s.vocab()),
          ErrorCode::corrupt, "the snapshot does not have the shape of this model");
  for (size_t g = 0; g < groups.size(); ++g) {
    require(data.blocks[g].size() == blocks, ErrorCode::corrupt,
            "the snapshot holds {} cache blocks for {} tokens, not {}", data.blocks[g].size(), data.position,
            blocks);
    // The blocks that a session at this position, or rolled back as far as allowed, can still see.
    const int64_t oldest =
        groups[g].window > 0 ? std::max<int64_t>(0, sinks + data.low_water - groups[g].window + 1) : 0;
    for (size_t i = 0; i < blocks; ++i) {
      const auto& block = data.blocks[g][i];
      const bool seen = static_cast<int64_t>(i) >= oldest / kPagePositions ||
                        static_cast<int64_t>(i) * kPagePositions < groups[g].sinks;
      require(block ? static_cast<int64_t>(block->size()) == groups[g].block_bytes : !seen,
              ErrorCode::corrupt, "the snapshot's cache block {} is missing or has another size", i);
    }
  }
  const auto& convs = s.state.layout().convs;
  bool convs_fit = data.convs.size() == convs.size();
  for (size_t i = 0; convs_fit && i < convs.size(); ++i)
    convs_fit = data.convs[i].size() == convs[i].values();
  require(convs_fit, ErrorCode::corrupt, "the snapshot does not have the convolution rows of this model");
  for (const TokenId id : data.tokens)
    require(id >= 0 && static_cast<uint64_t>(id) < s.vocab(), ErrorCode::corrupt,
            "the snapshot holds token id {}", id);
  s.state.restore(sinks + data.position, sinks + data.low_water, data.blocks, data.convs, data.recurrent);
  s.tokens = data.tokens;
  s.logits = data.logits;
  s.last_logits = 0;
  s.has_logits = !data.logits.empty();
}

}  // namespace mneme
