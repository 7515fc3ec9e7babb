# The Node addon: addon/binding over the core. N-API headers come from npm packages; nothing is
# downloaded and nothing of Node is linked.
set(node_api_headers "${CMAKE_SOURCE_DIR}/node_modules/node-api-headers/include")
set(node_addon_api "${CMAKE_SOURCE_DIR}/node_modules/node-addon-api")
if(NOT EXISTS "${node_api_headers}/node_api.h" OR NOT EXISTS "${node_addon_api}/napi.h")
  message(STATUS "LLAMA_STEER_ADDON: node_modules has no N-API headers (run npm ci); addon skipped")
  return()
endif()

file(GLOB binding_sources CONFIGURE_DEPENDS addon/binding/*.cc)
add_library(llama_steer MODULE ${binding_sources})
set_target_properties(llama_steer PROPERTIES PREFIX "" SUFFIX ".node")
target_include_directories(llama_steer SYSTEM PRIVATE ${node_api_headers} ${node_addon_api})
target_compile_definitions(llama_steer PRIVATE NAPI_VERSION=8 NODE_ADDON_API_CPP_EXCEPTIONS)
target_link_libraries(llama_steer PRIVATE llama_steer_core llama_steer_options)
if(TARGET llama_steer_cuda)
  add_dependencies(llama_steer llama_steer_cuda)
endif()
