// What users of grpc-js do with the image of descriptors that the edge serves; prints what came, as JSON.

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const image = Buffer.from(await (await fetch(`${process.env.KHESHT_URL}/khesht.binpb`)).arrayBuffer());
const { khesht } = grpc.loadPackageDefinition(protoLoader.loadFileDescriptorSetFromBuffer(image, { keepCase: true }));
const chat = new khesht.chat.v1.ChatService(process.env.KHESHT_GRPC, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.KHESHT_API_KEY}`);

const does = {
  async stream() {
    const tokens = [];
    for await (const event of chat.StreamReply({ message: "Hello", model: "fast" }, metadata)) if (event.token) tokens.push(event.token);
    return { tokens };
  },
  no_model: () =>
    new Promise((resolve) =>
      chat.CreateReply({ message: "Hello", model: "no-such-model" }, metadata, (error) =>
        resolve({ code: error.code, details: error.metadata.get("grpc-status-details-bin").length }),
      ),
    ),
};

console.log(JSON.stringify(await does[process.argv[2]]()));
chat.close();
