// SPDX-License-Identifier: MIT
#include "llama/model/model_shape.hpp"

#include <cmath>
#include <iterator>
#include <stdexcept>

namespace llama {

namespace {

// Far above every model, and small enough that products of two sizes fit in 64 bits.
constexpr std::int64_t kLargest = std::int64_t{1} << 30;
constexpr std::int64_t kMostHeads = std::int64_t{1} << 20;

/// The settings of a file that begin with its architecture.
class Settings {
 public:
  explicit Settings(const Gguf& file) : file_(file), architecture_(file.text("general.architecture")) {
    using namespace architecture;
    if (architecture_ != kLlama && architecture_ != kDeci && architecture_ != kHeadwise)
      file.fail("general.architecture is " + in_quotes(architecture_) + "; read are 'llama', 'deci' and 'headwise'");
  }

  std::string key(std::string_view name) const { return std::string(architecture_) + "." + std::string(name); }
  bool has(std::string_view name) const { return file_.has(key(name)); }
  std::string_view text(std::string_view name) const { return file_.text(key(name)); }
  std::int64_t integer(std::string_view name) const { return file_.integer(key(name)); }

  Index size(std::string_view name, std::int64_t most = kLargest) const {
    return checked_size(name, integer(name), most);
  }
  Index size_or(std::string_view name, Index otherwise, std::int64_t most = kLargest) const {
    return has(name) ? size(name, most) : otherwise;
  }
  /// One size for each layer: an array, or one number for all.
  std::vector<Index> sizes(std::string_view name, Index layers, std::int64_t most) const {
    const auto count = static_cast<std::size_t>(layers);
    if (!file_.holds_array(key(name))) return std::vector<Index>(count, size(name, most));
    std::vector<Index> result;
    for (const std::int64_t value : file_.integers(key(name))) result.push_back(checked_size(name, value, most));
    if (result.size() != count)
      fail(name, std::to_string(result.size()) + " numbers",
           "hold one for each of the " + std::to_string(layers) + " layers");
    return result;
  }
  /// The one number that all layers share.
  Index uniform(std::string_view name, Index layers, std::int64_t most = kLargest) const {
    const std::vector<Index> all = sizes(name, layers, most);
    for (const Index value : all)
      if (value != all.front())
        fail(name, std::to_string(all.front()) + " and " + std::to_string(value), "be the same in every layer");
    return all.front();
  }

  double positive(std::string_view name) const {
    const double value = file_.number(key(name));
    if (!(std::isfinite(value) && value > 0)) fail(name, std::to_string(value), "be finite and above 0");
    return value;
  }

  [[noreturn]] void fail(std::string_view name, const std::string& value, const std::string& expected) const {
    file_.fail(key(name) + " (" + value + ") must " + expected);
  }

 private:
  Index checked_size(std::string_view name, std::int64_t value, std::int64_t most) const {
    if (value < 1 || value > most) fail(name, std::to_string(value), "be 1 to " + std::to_string(most));
    return value;
  }

  const Gguf& file_;
  std::string_view architecture_;
};

headwise::RopeScaling read_scaling(const Settings& file) {
  if (file.has("rope.scale_linear"))  // the key of older files
    return headwise::LinearScaling{file.positive("rope.scale_linear")};
  if (!file.has("rope.scaling.type") || file.text("rope.scaling.type") == "none") return {};
  if (file.text("rope.scaling.type") != "linear")
    file.fail("rope.scaling.type", in_quotes(file.text("rope.scaling.type")), "be 'none' or 'linear'");
  return headwise::LinearScaling{file.positive("rope.scaling.factor")};
}

/// KV heads per layer, without their maps.
std::vector<KvHeads> read_counts(const Settings& file, Index num_heads, Index layers) {
  std::vector<KvHeads> result;
  if (!file.has("attention.head_count_kv"))
    return std::vector<KvHeads>(static_cast<std::size_t>(layers), {num_heads, {}});
  for (const Index count : file.sizes("attention.head_count_kv", layers, num_heads)) result.push_back({count, {}});
  return result;
}

/// The maps of a file that has them.
void read_maps(const Gguf& file, Index num_heads, std::vector<KvHeads>& layers) {
  const std::string key(architecture::kHeadMap);
  const std::vector<std::int64_t> numbers = file.integers(key);
  const Index wanted = num_heads * std::ssize(layers);
  if (std::ssize(numbers) != wanted)
    file.fail(key + " (" + std::to_string(numbers.size()) + " numbers) must hold one for each of the " +
              std::to_string(wanted) + " query heads of all layers");
  for (std::size_t i = 0; i < layers.size(); ++i) {
    std::vector<Index> map(numbers.begin() + static_cast<Index>(i) * num_heads,
                           numbers.begin() + static_cast<Index>(i + 1) * num_heads);
    try {
      layers[i].map = headwise::HeadMap::arbitrary(map, layers[i].count);
    } catch (const std::invalid_argument& error) {
      file.fail(key + " of layer " + std::to_string(i) + ": " + error.what());
    }
  }
}

headwise::KvSharing read_sharing(const Gguf& file, const std::vector<KvHeads>& layers) {
  const std::string key(architecture::kKvSource);
  if (!file.has(key)) return headwise::KvSharing::none(std::ssize(layers));
  const std::vector<std::int64_t> numbers = file.integers(key);
  if (numbers.size() != layers.size())
    file.fail(key + " (" + std::to_string(numbers.size()) + " numbers) must hold one for each of the " +
              std::to_string(layers.size()) + " layers");
  try {
    auto sharing = headwise::KvSharing::from_sources(std::vector<Index>(numbers.begin(), numbers.end()));
    for (Index l = 0; l < sharing.num_layers(); ++l) {
      const Index own = layers[static_cast<std::size_t>(l)].count;
      const Index source = layers[static_cast<std::size_t>(sharing.source(l))].count;
      if (own != source)
        file.fail(key + " lets layer " + std::to_string(l) + " (" + std::to_string(own) + " KV heads) read layer " +
                  std::to_string(sharing.source(l)) + " (" + std::to_string(source) + "): both must have as many");
    }
    return sharing;
  } catch (const std::invalid_argument& error) {
    file.fail(key + ": " + error.what());
  }
}

}  // namespace

ModelShape::ModelShape(const Gguf& file) {
  const Settings settings(file);
  if (settings.has("expert_count") && settings.integer("expert_count") != 0)
    settings.fail("expert_count", std::to_string(settings.integer("expert_count")), "be 0: no mixture of experts");

  num_layers = settings.size("block_count");
  const Index tensors = std::ssize(file.tensors());  // what the file holds bounds what is made for each layer
  if (num_layers > tensors)
    settings.fail("block_count", std::to_string(num_layers),
                  "be at most the tensors in the file (" + std::to_string(tensors) + "): each layer has its own");
  hidden_size = settings.size("embedding_length");
  feed_forward_size = settings.uniform("feed_forward_length", num_layers);
  context_length = settings.size("context_length");
  norm_epsilon = settings.positive("attention.layer_norm_rms_epsilon");

  num_heads = settings.uniform("attention.head_count", num_layers, kMostHeads);
  kv_heads = read_counts(settings, num_heads, num_layers);
  if (file.has(architecture::kHeadMap)) read_maps(file, num_heads, kv_heads);
  for (const KvHeads& layer : kv_heads)
    if (!layer.map && num_heads % layer.count != 0)
      settings.fail("attention.head_count", std::to_string(num_heads),
                    "be a multiple of head_count_kv (" + std::to_string(layer.count) + ")");
  sharing = read_sharing(file, kv_heads);

  if (!settings.has("attention.key_length") && hidden_size % num_heads != 0)
    settings.fail("embedding_length", std::to_string(hidden_size),
                  "be a multiple of attention.head_count (" + std::to_string(num_heads) +
                      ") where attention.key_length is not given");
  head_dim = settings.size_or("attention.key_length", hidden_size / num_heads);
  value_dim = settings.size_or("attention.value_length", head_dim);
  for (const Index dim : {head_dim, value_dim})
    if (dim > headwise::kMaxHeadDim)
      file.fail("the heads have " + std::to_string(dim) + " dimensions and must have at most " +
                std::to_string(headwise::kMaxHeadDim));

  // llama.cpp's files hold the rows of the query and key weights in the order that makes a pair two neighbours
  rope.style = headwise::RopeStyle::interleaved;
  rope.base = settings.has("rope.freq_base") ? settings.positive("rope.freq_base") : 10000.0;
  rope.rotary_dim = settings.size_or("rope.dimension_count", head_dim, head_dim);
  if (rope.rotary_dim % 2 != 0) settings.fail("rope.dimension_count", std::to_string(rope.rotary_dim), "be even");
  rope.scaling = read_scaling(settings);
  if (const auto* linear = std::get_if<headwise::LinearScaling>(&rope.scaling); linear && linear->factor < 1)
    settings.fail("rope.scaling.factor", std::to_string(linear->factor), "be at least 1");
}

}  // namespace llama
