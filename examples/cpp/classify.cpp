// Classify one image with a bundle's network: classify MODEL.onnx LABELS.txt INPUT.f32
//
// INPUT.f32 is the network's input as raw float32, (1, 3, r, r): RGB, scaled and normalised as `input.preprocessing`
// of the bundle's manifest.json says. A camera's frame is brought there by the library that it comes from (OpenCV:
// cv::dnn::blobFromImage). `python run.py --input-for INPUT.f32 IMAGE.png` of the bundle writes one to compare with.
// Prints one class a line, the likeliest first: logit, tab, label. Exit codes: 0 well, 2 bad input.

#include <algorithm>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

namespace {

std::vector<float> read_floats(const std::string& path, size_t count) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.size() != count * sizeof(float)) {
    throw std::runtime_error(path + " holds " + std::to_string(bytes.size()) + " bytes, not " +
                             std::to_string(count * sizeof(float)));
  }
  std::vector<float> values(count);
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(values.data()));
  return values;
}

std::vector<std::string> read_lines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

void classify(const std::string& model, const std::string& labels_path, const std::string& input_path) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "classify");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);  // the target's `threads` of the manifest
  Ort::Session session(env, std::basic_string<ORTCHAR_T>(model.begin(), model.end()).c_str(), options);

  Ort::AllocatorWithDefaultOptions allocator;
  const auto input_name = session.GetInputNameAllocated(0, allocator);
  const auto output_name = session.GetOutputNameAllocated(0, allocator);
  const auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
  const auto size = static_cast<size_t>(
      std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<int64_t>()));

  auto input = read_floats(input_path, size);
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto tensor =
      Ort::Value::CreateTensor<float>(memory, input.data(), input.size(), shape.data(), shape.size());

  const char* input_names[] = {input_name.get()};
  const char* output_names[] = {output_name.get()};
  const auto outputs = session.Run(Ort::RunOptions{nullptr}, input_names, &tensor, 1, output_names, 1);

  const auto labels = read_lines(labels_path);
  const float* logits = outputs[0].GetTensorData<float>();
  if (outputs[0].GetTensorTypeAndShapeInfo().GetElementCount() < labels.size() || labels.empty()) {
    throw std::runtime_error(labels_path + " does not fit the network's output");
  }
  std::vector<size_t> order(labels.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  std::cout.precision(9);
  for (const size_t index : order) std::cout << logits[index] << '\t' << labels[index] << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "classify: give MODEL.onnx LABELS.txt INPUT.f32\n";
    return 2;
  }
  try {
    classify(argv[1], argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::cerr << "classify: " << error.what() << '\n';
    return 2;
  }
  return 0;
}
