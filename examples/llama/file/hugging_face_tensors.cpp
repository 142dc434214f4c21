// SPDX-License-Identifier: MIT
#include "llama/file/hugging_face_tensors.hpp"

#include "llama/file/gguf.hpp"

namespace llama {

namespace {

std::string text(const std::vector<Index>& sizes) {
  std::string out;
  for (const Index size : sizes) out += (out.empty() ? "" : " x ") + std::to_string(size);
  return out;
}

}  // namespace

HuggingFaceTensors::HuggingFaceTensors(const std::filesystem::path& folder) {
  const auto whole = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (std::filesystem::exists(whole)) {
    name_ = whole;
    open(whole);
  } else if (std::filesystem::exists(index)) {
    name_ = index;
    open_parts(index);
  } else {
    name_ = folder;
    fail("holds neither model.safetensors nor model.safetensors.index.json");
  }
}

void HuggingFaceTensors::open(const std::filesystem::path& path) {
  maps_.push_back(std::make_unique<MappedFile>(path));
  files_.push_back(std::make_unique<Safetensors>(maps_.back()->bytes(), path));
  for (const StoredTensor& tensor : files_.back()->tensors())
    if (!tensors_.emplace(tensor.name, &tensor).second)
      fail("tensor " + in_quotes(tensor.name) + " is in two of its files");
}

void HuggingFaceTensors::open_parts(const std::filesystem::path& index) {
  const Json json = read_json(index);
  const JsonObject map = JsonObject(json, index).object("weight_map");
  std::map<std::string, std::size_t> tensors_of_part;
  for (const auto& [tensor, value] : map.json().items()) {
    const std::string& part = map.text(tensor);
    if (part.empty() || part.starts_with('.') || part.find('/') != std::string::npos)
      map.fail(tensor, "must be the name of a file beside it");
    ++tensors_of_part[part];
  }
  for (const auto& [part, count] : tensors_of_part) {
    open(index.parent_path() / part);
    for (const StoredTensor& tensor : files_.back()->tensors())
      if (!map.has(tensor.name) || map.text(tensor.name) != part)
        fail("does not say that tensor " + in_quotes(tensor.name) + " is in " + in_quotes(part));
    if (files_.back()->tensors().size() != count)  // those that are there are listed, so some are listed only
      for (const auto& [tensor, value] : map.json().items())
        if (value == part && !has(tensor)) fail("says that tensor " + in_quotes(tensor) + " is in " + in_quotes(part));
  }
}

const StoredTensor& HuggingFaceTensors::take(const std::string& name, const std::vector<Index>& sizes) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail("tensor " + in_quotes(name) + " is missing");
  const StoredTensor& tensor = *found->second;
  if (tensor.sizes != sizes)
    fail("tensor " + in_quotes(name) + " (" + text(tensor.sizes) + ") must be " + text(sizes) + " by config.json");
  taken_.insert(tensor.name);
  return tensor;
}

void HuggingFaceTensors::check_that_all_are_taken() const {
  for (const auto& [name, tensor] : tensors_)
    // older files keep the rotary embedding's frequencies, which follow from the settings
    if (!taken_.contains(name) && !name.ends_with(".rotary_emb.inv_freq"))
      fail("tensor " + in_quotes(name) + " is none that this model has by config.json");
}

}  // namespace llama
