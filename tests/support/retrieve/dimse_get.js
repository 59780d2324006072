// C-GET over TLS with dcmjs-dimse. One argument: a JSON file with host, port, calling, called, study, key, cert, ca,
// contexts [[SOP class, transfer syntax]...] and out: everything that came out of the TLS connection goes into that
// file as it is, so that the data sets can be compared byte for byte (dcmjs itself decodes them).
'use strict';
const fs = require('fs');
const tls = require('tls');

const options = JSON.parse(fs.readFileSync(process.argv[2]));
const out = fs.openSync(options.out, 'w');
const connect = tls.connect;
tls.connect = (...args) => {
  const socket = connect(...args);
  socket.on('data', (data) => fs.writeSync(out, data));
  return socket;
};

const dimse = require('dcmjs-dimse');
dimse.log.setLevel('error');
const { Client, association, requests, responses, constants } = dimse;

const client = new Client();
const request = requests.CGetRequest.createStudyGetRequest(options.study);
let last = null;
request.on('response', (response) => {
  if (response.getStatus() !== constants.Status.Pending) {
    last = { status: response.getStatus(), completed: response.getCompleted(), failed: response.getFailures() };
  }
});
request.setAddStorageSopClassesToAssociation(false);
client.addRequest(request);
options.contexts.forEach(([sopClass, syntax]) => {
  client.addAdditionalPresentationContext(new association.PresentationContext(0, sopClass, syntax), true);
});
client.on('cStoreRequest', (store, callback) => {
  const response = responses.CStoreResponse.fromRequest(store);
  response.setStatus(constants.Status.Success);
  callback(response);
});
client.on('networkError', (error) => {
  console.log(JSON.stringify({ error: String(error) }));
  process.exit(1);
});
client.on('associationRejected', (result) => {
  console.log(JSON.stringify({ rejected: result }));
  process.exit(2);
});
client.on('closed', () => {
  console.log(JSON.stringify(last));
  process.exit(last === null ? 3 : 0);
});
client.send(options.host, options.port, options.calling, options.called, {
  securityOptions: {
    key: fs.readFileSync(options.key),
    cert: fs.readFileSync(options.cert),
    ca: fs.readFileSync(options.ca),
    rejectUnauthorized: true,
    minVersion: 'TLSv1.2',
  },
});
