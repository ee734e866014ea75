#include "text/tokenizer_json.h"

#include <algorithm>
#include <optional>

#include "core/fail.h"
#include "text/json_cursor.h"

namespace mneme {

namespace {

constexpr std::string_view kFile = "tokenizer.json";
constexpr size_t kMaxHoles = 4096;  // ids without a piece; some vocabularies skip a few

// The members of "model" that are too large for a document tree.
struct Pieces {
  std::vector<std::string_view> spelling;  // per id; data() is null where there is none
  std::vector<double> scores;
};

// {"piece": id, ...}
void read_vocab_object(JsonCursor& json, Pieces& out) {
  json.expect('{');
  if (json.accept('}')) return;
  size_t count = 0;
  do {
    const std::string_view spelling = json.string();
    json.expect(':');
    const int64_t id = json.integer();
    ++count;
    const bool sane = id >= 0 && static_cast<size_t>(id) < Vocabulary::kMaxPieces;
    require(sane, ErrorCode::corrupt, "{}: the piece \"{}\" has the id {}, which is out of range", kFile,
            spelling, id);
    const auto index = static_cast<size_t>(id);
    if (index >= out.spelling.size()) out.spelling.resize(std::max(index + 1, out.spelling.size() * 3 / 2));
    require(out.spelling[index].data() == nullptr, ErrorCode::corrupt,
            "{}: the pieces \"{}\" and \"{}\" have the same id {}", kFile, out.spelling[index], spelling, id);
    out.spelling[index] = spelling;
  } while (json.accept(','));
  json.expect('}');
  while (!out.spelling.empty() && out.spelling.back().data() == nullptr) out.spelling.pop_back();
  require(out.spelling.size() - count <= kMaxHoles, ErrorCode::corrupt,
          "{}: {} pieces have ids up to {}; more than {} ids are missing", kFile, count,
          out.spelling.size() - 1, kMaxHoles);
}

// [["piece", score], ...]
void read_vocab_array(JsonCursor& json, Pieces& out) {
  json.expect('[');
  if (json.accept(']')) return;
  do {
    json.expect('[');
    out.spelling.push_back(json.string());
    json.expect(',');
    out.scores.push_back(json.number());
    json.expect(']');
  } while (json.accept(','));
  json.expect(']');
}

void read_merges(JsonCursor& json, TokenizerSpec& spec) {
  json.expect('[');
  if (json.accept(']')) return;
  std::string whole;
  do {
    std::string_view left, right;
    if (json.accept('[')) {
      left = json.string();
      json.expect(',');
      right = json.string();
      json.expect(']');
    } else {
      const std::string_view both = json.string();
      const size_t space = both.find(' ');
      const bool two = space != std::string_view::npos && both.find(' ', space + 1) == std::string_view::npos;
      require(two, ErrorCode::corrupt, "{}: merge {}, \"{}\", is not two pieces", kFile, spec.merges.size(),
              both);
      left = both.substr(0, space);
      right = both.substr(space + 1);
    }
    whole.assign(left).append(right);
    const Merge merge{spec.vocab.find(left), spec.vocab.find(right), spec.vocab.find(whole)};
    require(merge.left >= 0 && merge.right >= 0 && merge.result >= 0, ErrorCode::corrupt,
            "{}: merge {}, \"{}\" and \"{}\", names a piece that is not in the vocabulary", kFile,
            spec.merges.size(), left, right);
    spec.merges.push_back(merge);
  } while (json.accept(','));
  json.expect(']');
}

void build_vocabulary(const Pieces& pieces, TokenizerSpec& spec) {
  size_t bytes = 0;
  for (const std::string_view spelling : pieces.spelling) bytes += spelling.size();
  spec.vocab.reserve(pieces.spelling.size(), bytes);
  for (const std::string_view spelling : pieces.spelling) {
    if (spelling.data() == nullptr) {
      spec.vocab.pad_to(spec.vocab.size() + 1);
      continue;
    }
    // A unigram list may name a piece twice; its later entry is then never used, as in the reference.
    require(spec.vocab.add(spelling) || !pieces.scores.empty(), ErrorCode::corrupt,
            "{}: the piece \"{}\" is in the vocabulary twice", kFile, spelling);
  }
}

// Reads vocabulary and merges straight from the text, and returns the rest of the document as a tree in which
// both are null.
Json read_large_members(std::string_view text, TokenizerSpec& spec) {
  JsonCursor json(text, kFile);
  std::string rest;
  size_t copied = 0;
  std::optional<size_t> merges;
  bool have_vocab = false;
  const auto cut = [&](size_t begin) {
    rest.append(text.substr(copied, begin - copied)).append("null");
    copied = json.position();
  };
  const auto read_model = [&] {
    json.expect('{');
    if (json.accept('}')) return;
    do {
      const std::string_view key = json.string();
      json.expect(':');
      const char first = json.peek();
      const size_t begin = json.position();
      if (key == "vocab" && !have_vocab) {
        Pieces pieces;
        first == '[' ? read_vocab_array(json, pieces) : read_vocab_object(json, pieces);
        build_vocabulary(pieces, spec);
        spec.scores = std::move(pieces.scores);
        have_vocab = true;
        cut(begin);
      } else if (key == "merges" && !merges) {
        merges = begin;
        have_vocab ? read_merges(json, spec) : json.skip();
        cut(begin);
      } else {
        json.skip();
      }
    } while (json.accept(','));
    json.expect('}');
  };
  json.expect('{');
  if (!json.accept('}')) {
    do {
      const std::string_view key = json.string();
      json.expect(':');
      if (key == "model" && json.peek() == '{')
        read_model();
      else
        json.skip();
    } while (json.accept(','));
    json.expect('}');
  }
  rest.append(text.substr(copied));
  require(have_vocab, ErrorCode::corrupt, "{} has no model.vocab", kFile);
  if (merges && spec.merges.empty()) {
    json.seek(*merges);
    read_merges(json, spec);
  }
  return parse_json(rest, kFile);
}

void read_model(const Json& model, TokenizerSpec& spec) {
  require(model.is_object(), ErrorCode::corrupt, "{}: \"model\" is not an object", kFile);
  // Old files leave the type out; then the members tell.
  const std::string type = model.contains("type")     ? json_type_of(model, "model")
                           : model.contains("merges") ? "BPE"
                                                      : "Unigram";
  if (type == "Unigram") {
    spec.model = TokenizerModel::unigram;
    require(!spec.scores.empty(), ErrorCode::corrupt, "{}: the vocabulary of a Unigram model has no scores",
            kFile);
    if (model.contains("unk_id") && !model["unk_id"].is_null()) {
      const int64_t unk = json_int(model, "unk_id", "model");
      require(spec.vocab.contains(unk), ErrorCode::corrupt, "{}: unk_id {} is outside the {} pieces", kFile,
              unk, spec.vocab.size());
      spec.unk = static_cast<TokenId>(unk);
    }
    spec.fuse_unk = true;
  } else if (type == "BPE") {
    require(spec.scores.empty(), ErrorCode::corrupt, "{}: the vocabulary of a BPE model is a list", kFile);
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      require(!model.contains(key) || model[key].is_null() || model[key] == "", ErrorCode::unsupported,
              "{}: a BPE model with {} is not supported", kFile, key);
    require(!model.contains("dropout") || model["dropout"].is_null() || model["dropout"] == 0.0,
            ErrorCode::unsupported, "{}: a BPE model with dropout is not supported", kFile);
    if (model.contains("unk_token") && !model["unk_token"].is_null()) {
      const std::string unk = json_string(model, "unk_token", "model");
      spec.unk = spec.vocab.find(unk);
      require(spec.unk >= 0, ErrorCode::corrupt, "{}: unk_token \"{}\" is not in the vocabulary", kFile, unk);
    }
    spec.fuse_unk = json_bool(model, "fuse_unk", false, "model");
    spec.ignore_merges = json_bool(model, "ignore_merges", false, "model");
  } else {
    fail(ErrorCode::unsupported, "{}: the model type \"{}\" is not supported; known are BPE and Unigram",
         kFile, type);
  }
  spec.byte_fallback = json_bool(model, "byte_fallback", false, "model");
}

void read_added_tokens(const Json& root, TokenizerSpec& spec) {
  if (!root.contains("added_tokens")) return;
  for (const Json& json : json_array(root, "added_tokens", kFile)) {
    AddedToken token;
    const int64_t id = json_int(json, "id", "an added token");
    require(id >= 0 && static_cast<size_t>(id) < Vocabulary::kMaxPieces, ErrorCode::corrupt,
            "{}: the id {} of an added token is out of range", kFile, id);
    token.id = static_cast<TokenId>(id);
    token.content = json_string(json, "content", "an added token");
    token.special = json_bool(json, "special", false, "an added token");
    token.lstrip = json_bool(json, "lstrip", false, "an added token");
    token.rstrip = json_bool(json, "rstrip", false, "an added token");
    token.single_word = json_bool(json, "single_word", false, "an added token");
    token.normalized = json_bool(json, "normalized", !token.special, "an added token");
    if (!token.content.empty()) spec.added.push_back(std::move(token));
  }
  std::stable_sort(spec.added.begin(), spec.added.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  for (const AddedToken& token : spec.added) {
    const auto id = static_cast<size_t>(token.id);
    if (id < spec.vocab.size()) continue;  // its spelling is checked in make_tokenizer
    require(id - spec.vocab.size() <= kMaxHoles, ErrorCode::corrupt,
            "{}: added token \"{}\" has the id {}, but the vocabulary ends at {}", kFile, token.content, id,
            spec.vocab.size());
    spec.vocab.pad_to(id);
    require(spec.vocab.add(token.content), ErrorCode::corrupt,
            "{}: added token \"{}\" has the id {}, but the vocabulary has it at {}", kFile, token.content, id,
            spec.vocab.find(token.content));
  }
}

// "bos_token" is a string, or an object with the string under "content".
TokenId named_token(const Json& config, const char* key, const TokenizerSpec& spec) {
  if (!config.contains(key)) return -1;
  const Json& value = config[key];
  const Json& name = value.is_object() && value.contains("content") ? value["content"] : value;
  return name.is_string() ? spec.vocab.find(name.get_ref<const std::string&>()) : -1;
}

// A template, or a list of named ones of which "default" counts.
std::string chat_template_of(const Json& config) {
  if (!config.contains("chat_template")) return {};
  const Json& value = config["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array())
    for (const Json& entry : value)
      if (entry.is_object() && entry.value("name", Json()) == "default" && entry.contains("template"))
        return json_string(entry, "template", "chat_template");
  return {};
}

void add_ids(const Json& config, const char* key, const TokenizerSpec& spec, std::vector<TokenId>& out) {
  if (!config.contains(key) || config[key].is_null()) return;
  const Json& value = config[key];
  for (const Json& entry : value.is_array() ? value : Json::array({value})) {
    require(entry.is_number_integer() && spec.vocab.contains(entry.get<int64_t>()), ErrorCode::corrupt,
            "generation_config.json: {} holds {}, which is not an id of the {} pieces", key, entry.dump(),
            spec.vocab.size());
    out.push_back(entry.get<TokenId>());
  }
}

}  // namespace

TokenizerSpec spec_from_tokenizer_json(std::string_view tokenizer_json, std::string_view tokenizer_config,
                                       std::string_view generation_config) {
  TokenizerSpec spec;
  const Json root = read_large_members(tokenizer_json, spec);
  require(root.contains("model"), ErrorCode::corrupt, "{} has no model", kFile);
  read_model(root["model"], spec);
  read_added_tokens(root, spec);
  const auto part = [&](const char* key) { return root.contains(key) ? root[key] : Json(); };
  read_normalizer(part("normalizer"), spec);
  read_pre_tokenizer(part("pre_tokenizer"), spec);
  read_post_processor(part("post_processor"), spec);
  read_decoder(part("decoder"), spec);
  if (!tokenizer_config.empty()) {
    const Json config = parse_json(tokenizer_config, "tokenizer_config.json");
    require(config.is_object(), ErrorCode::corrupt, "tokenizer_config.json is not an object");
    spec.bos = named_token(config, "bos_token", spec);
    spec.eos = named_token(config, "eos_token", spec);
    spec.chat_template = chat_template_of(config);
  }
  if (!generation_config.empty()) {
    const Json config = parse_json(generation_config, "generation_config.json");
    require(config.is_object(), ErrorCode::corrupt, "generation_config.json is not an object");
    std::vector<TokenId> bos;
    add_ids(config, "bos_token_id", spec, bos);
    if (spec.bos < 0 && !bos.empty()) spec.bos = bos.front();
    const size_t before = spec.stop.size();
    add_ids(config, "eos_token_id", spec, spec.stop);
    if (spec.eos < 0 && spec.stop.size() > before) spec.eos = spec.stop[before];
  }
  add_known_stop_tokens(spec);
  return spec;
}

}  // namespace mneme
